(* Read convolution certificates and say which of them the proved function `accepted` accepts.

   Only this file's reading is unproved: words and whole numbers, separated by blanks; a line that
   begins with # is a remark. *)
open Accepted
open Big_int_Z

exception Malformed of string

let words path =
  let file = open_in path in
  let rec lines kept =
    match input_line file with
    | line when line <> "" && line.[0] = '#' -> lines kept
    | line -> lines (List.rev_append (String.split_on_char ' ' line) kept)
    | exception End_of_file -> close_in file; List.filter (( <> ) "") (List.rev kept)
  in
  ref (lines [])

let next rest =
  match !rest with
  | [] -> raise (Malformed "it ends too early")
  | word :: others -> rest := others; word

let named rest word =
  let found = next rest in
  if found <> word then raise (Malformed (Printf.sprintf "%S where %S should stand" found word))

let number rest =
  let word = next rest in
  try big_int_of_string word with _ -> raise (Malformed (Printf.sprintf "%S is no whole number" word))

let positive rest =
  let found = number rest in
  if sign_big_int found <= 0 then raise (Malformed (string_of_big_int found ^ " counts nothing"));
  found

let fraction rest word =
  named rest word;
  let above = number rest in
  let below = number rest in
  (above, below)

let losses rest word =
  named rest word;
  let start = number rest in
  let infinite = number rest in
  let count = int_of_big_int (positive rest) in
  let rec read count kept = if count = 0 then List.rev kept else read (count - 1) (number rest :: kept) in
  { start; infinite; masses = read count [] }

let shown (above, below) = string_of_big_int above ^ "/" ^ string_of_big_int below

let rec kinds rest =
  if !rest = [] then []
  else begin
    named rest "rounds";
    let rounds = positive rest in
    let rate = fraction rest "rate" in
    let noise = fraction rest "noise" in
    Printf.printf "%s rounds of rate %s and noise %s\n"
      (string_of_big_int rounds) (shown rate) (shown noise);
    let removing = losses rest "remove" in
    let adding = losses rest "add" in
    { rounds; removing; adding } :: kinds rest
  end

let check path =
  let rest = words path in
  named rest "privagg-convolution-certificate-1";
  let field word = named rest word; number rest in
  let bits = field "bits" in
  let limit = field "limit" in
  let steps = field "steps" in
  let epsilon = field "epsilon" in
  let delta = fraction rest "delta" in
  let distance = fraction rest "distance" in
  let holds = accepted { bits; limit; steps; epsilon; delta; distance; kinds = kinds rest } in
  Printf.printf "%s: epsilon %s at delta %s, distance %s: %s\n" (if holds then "accepted" else "REFUSED")
    (shown (epsilon, steps)) (shown delta) (shown distance) path;
  holds

let () =
  let right path =
    try check path with
    | Malformed what -> Printf.printf "REFUSED, no certificate: %s: %s\n" what path; false
    | Sys_error what | Failure what -> Printf.printf "REFUSED: %s: %s\n" what path; false
  in
  match List.tl (Array.to_list Sys.argv) with
  | [] -> prerr_endline "name certificates to check"; exit 2
  | paths -> exit (if List.for_all right paths then 0 else 1)
