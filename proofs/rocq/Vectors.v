(* Integer vectors, and the 64-bit words that they are computed in.

   Models:
     privagg.encoding.grid:Grid.sum_records (the sum of rows, before it is clamped)

   A vector is a list of integers. Words are integers modulo 2^64: `u64` is numpy's uint64, `i64`
   its int64. *)
From Coq Require Import ZArith List Lia Permutation.
Import ListNotations.
Open Scope Z_scope.

Fixpoint vadd (u v : list Z) : list Z :=
  match u, v with x :: u', y :: v' => (x + y) :: vadd u' v' | _, _ => [] end.
Fixpoint vsub (u v : list Z) : list Z :=
  match u, v with x :: u', y :: v' => (x - y) :: vsub u' v' | _, _ => [] end.
Fixpoint sum (v : list Z) : Z := match v with [] => 0 | x :: v' => x + sum v' end.
Definition square_sum (v : list Z) : Z := sum (map (fun x => x * x) v).
Definition zeros (d : nat) : list Z := repeat 0 d.

(* The sum of rows that have d columns each. *)
Definition column_sum (d : nat) (rows : list (list Z)) : list Z := fold_right vadd (zeros d) rows.

Definition word : Z := 2 ^ 64.
Definition u64 (x : Z) : Z := x mod word.
Definition i64 (x : Z) : Z := (x + 2 ^ 63) mod word - 2 ^ 63.

Lemma sum_app u v : sum (u ++ v) = sum u + sum v.
Proof. induction u; simpl; lia. Qed.

Lemma sum_nonneg v : Forall (fun x => 0 <= x) v -> 0 <= sum v.
Proof. induction 1; simpl; lia. Qed.

Lemma square_sum_nonneg v : 0 <= square_sum v.
Proof. apply sum_nonneg, Forall_map, Forall_forall; intros; nia. Qed.

Lemma square_sum_zeros d : square_sum (zeros d) = 0.
Proof. unfold square_sum, zeros; induction d; simpl; auto. Qed.

Lemma vadd_comm u v : vadd u v = vadd v u.
Proof. revert v; induction u; destruct v; simpl; auto; f_equal; auto; lia. Qed.

Lemma vadd_assoc u v w : vadd u (vadd v w) = vadd (vadd u v) w.
Proof. revert v w; induction u; destruct v, w; simpl; auto; f_equal; auto; lia. Qed.

Lemma vadd_length u v d : length u = d -> length v = d -> length (vadd u v) = d.
Proof. revert v d; induction u; destruct v; simpl; intros [|d] Hu Hv; try discriminate; auto. Qed.

Lemma vsub_vadd u v : length u = length v -> vsub (vadd u v) v = u.
Proof.
  revert v; induction u; destruct v; simpl; intros; try discriminate; auto.
  f_equal; [lia | auto].
Qed.

Lemma column_sum_length d rows :
  Forall (fun r => length r = d) rows -> length (column_sum d rows) = d.
Proof. induction 1; simpl; [apply repeat_length | apply vadd_length; auto]. Qed.

Lemma column_sum_insert d before r after :
  column_sum d (before ++ r :: after) = vadd r (column_sum d (before ++ after)).
Proof.
  induction before as [|b before IH]; simpl; auto.
  now rewrite IH, vadd_assoc, (vadd_comm b r), vadd_assoc.
Qed.

Lemma column_sum_perm d rows rows' :
  Permutation rows rows' -> column_sum d rows = column_sum d rows'.
Proof.
  unfold column_sum; induction 1; simpl; try congruence.
  now rewrite vadd_assoc, (vadd_comm y), <- vadd_assoc.
Qed.

Lemma i64_exact x : - 2 ^ 63 <= x < 2 ^ 63 -> i64 x = x.
Proof. intros H; unfold i64, word; rewrite Z.mod_small; lia. Qed.

Lemma i64_congruent x : (i64 x - x) mod word = 0.
Proof.
  unfold i64; replace ((x + 2 ^ 63) mod word - 2 ^ 63 - x)
    with ((x + 2 ^ 63) mod word - (x + 2 ^ 63)) by ring.
  now rewrite Zminus_mod_idemp_l, Z.sub_diag.
Qed.

Lemma i64_of_congruent x y : (x - y) mod word = 0 -> i64 x = i64 y.
Proof.
  intros H; unfold i64; f_equal.
  replace (x + 2 ^ 63) with (y + 2 ^ 63 + (x - y)) by ring.
  now rewrite Z.add_mod, H, Z.add_0_r, Z.mod_mod by easy.
Qed.
