(* The certificates' checker as a program: OCaml for `accepted`, which checks.ml reads a file for.

   Models: nothing of its own.

   Taken on trust beside Rocq: its extraction, the standard library's map from Z to Zarith, the
   OCaml compiler, and checks.ml. *)
From Coq Require Import Extraction ExtrOcamlBasic ExtrOcamlZBigInt.
From Privagg Require Import Certificate.

Extraction "accepted.ml" accepted.
