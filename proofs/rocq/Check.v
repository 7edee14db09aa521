(* The theorems' own definitions give what privagg's functions answered.

   Models: nothing of its own. *)
From Coq Require Import ZArith List Bool Lia.
From Privagg Require Import Vectors Sums Sensitivity Capacity LazyReduction Masks Factors.
From Privagg Require Import Convolution Answers.
Import ListNotations.
Open Scope Z_scope.

Definition same (u v : list Z) : bool := if list_eq_dec Z.eq_dec u v then true else false.
Definition reaches (n : Z) (tops : list Z) (noise upload sum : Z) : bool :=
  (upload_bound tops noise =? upload) && (sum_bound (Z.to_nat n) tops noise =? sum).

Definition ok_clamp '(bound, xs, answer) := same (map (clamp bound) xs) answer.
Definition ok_square_sum '(limit, row, answer) := capped_square_sum (limit * limit) row =? answer.
Definition ok_quantised '(limit, row) :=
  (square_sum row <=? limit * limit) && forallb (fun x => Z.abs x <=? limit) row.
Definition ok_bounded '(times, least, largest, limit, row, answer) :=
  same (shrunk times limit (map (fun x => Z.max least (Z.min largest x)) row)) answer
  && (times * square_sum answer <=? limit * limit).
Definition ok_word '(bound, uploads, packed, values, bound_of_sum) :=
  let radix := 2 * bound + 1 in
  (sum (map (pack radix) uploads) =? packed)
  && same (unpack radix bound (length values) packed) values
  && same (column_sum (length values) uploads) values
  && (bound * digit_weight radix (length values) =? bound_of_sum).
Definition ok_slots '(w, uploads, packed, values) :=
  (sum (map (pack (2 ^ w)) uploads) =? packed)
  && same (unpack (2 ^ w) (2 ^ (w - 1)) (length values) packed) values
  && same (column_sum (length values) uploads) values.
Definition ok_payload '(w, uploads, packed, values) :=
  let d := length values in
  (sum (map (pack (2 ^ w)) uploads) mod (2 ^ w) ^ Z.of_nat d =? packed)
  && same (unpack (2 ^ w) (2 ^ (w - 1)) d packed) values
  && same (column_sum d uploads) values.
Definition ok_field '(w, shift, uploads, packed, values) :=
  let d := length values in
  (sum (map (field_pack w shift) uploads) mod 2 ^ field_bits w shift d =? packed)
  && same (field_unpack w shift d (Z.of_nat (length uploads)) packed) values
  && same (column_sum d uploads) values.
Definition ok_mask '(w, values, streams, signs, masked) :=
  payload w values streams signs =? masked.
Definition ok_limbs '(bits, count, values, summed, joined) :=
  same (column_sum (Z.to_nat count) (map (split (2 ^ bits) (Z.to_nat count)) values)) summed
  && (join (2 ^ bits) summed =? joined) && (sum values =? joined).
Definition ok_residue_sum '(q, xs, answer) := lazily (length xs) q 0 xs =? answer.
Definition ok_factored '(a, g, answer) :=
  let at_ rows t j := nth j (nth t rows []) 0 in
  let columns rows := seq 0 (length (hd [] rows)) in
  (square_norm (seq 0 (length a)) (columns g) (columns a) (at_ g) (at_ a) =? answer)
  && (inner_of_grams (seq 0 (length a)) (columns g) (columns a) (at_ g) (at_ a) =? answer).
Definition ok_noise '(n, d, radix, levels, answer) :=
  noise_bound n d radix (Z.to_nat levels) =? answer.
Definition weighted (of_records : Z -> Z) (site : list Z) : Z :=
  match site with [records; weight] => weight * of_records records | _ => 0 end.
Definition ok_record_plan '(a, b, limit, sites, noise, n, upload, sum) :=
  reaches n (map (weighted (clamp_of_sampled a b limit)) sites) noise upload sum.
Definition ok_client_plan '(clamp, limit, weights, noise, n, upload, sum) :=
  reaches n (map (Z.mul (clamp_of_update clamp limit)) weights) noise upload sum.
Definition ok_local_plan '(levels, weights, upload, sum) :=
  reaches (Z.of_nat (length weights)) (map (Z.mul levels) weights) 0 upload sum.
Definition round_reaches (n : Z) (bound : list Z -> Z -> Z) (round : list Z) : Z :=
  match round with
  | L :: noise :: addends => bound (map (clamp_of_all L) addends) noise
  | _ => 0
  end.
Definition ok_sums_plan '(rounds, n, upload, sum) :=
  (largest_of (map (round_reaches n upload_bound) rounds) =? upload)
  && (largest_of (map (round_reaches n (sum_bound (Z.to_nat n))) rounds) =? sum).

Definition are (p : losses) (at_ beyond : Z) (l : list Z) : bool :=
  (start p =? at_) && (infinite p =? beyond) && same (masses p) l.
Definition ok_grid_product '(bits, limit, k, i, p, k', i', p', at_, beyond, answer) :=
  are (product bits limit (Losses k p i) (Losses k' p' i')) at_ beyond answer.
Definition ok_grid_power '(bits, limit, k, i, p, n, at_, beyond, answer) :=
  are (power bits limit (Losses k p i) (Z.to_pos n)) at_ beyond answer.

Theorem privagg_answers_what_the_definitions_say :
  forallb ok_clamp clamps && forallb ok_square_sum square_sums && forallb ok_quantised quantised
  && forallb ok_bounded bounded_rows && forallb ok_word words && forallb ok_slots slots
  && forallb ok_payload payloads && forallb ok_mask masks && forallb ok_limbs limbs
  && forallb ok_residue_sum residue_sums && forallb ok_factored factored
  && forallb ok_noise noise_bounds && forallb ok_record_plan record_plans
  && forallb ok_client_plan client_plans && forallb ok_local_plan local_plans
  && forallb ok_sums_plan sums_plans && forallb ok_field fields
  && forallb ok_grid_product grid_products && forallb ok_grid_power grid_powers = true.
Proof. vm_compute; reflexivity. Qed.
