(* One record moves a site's integer sum by at most S, whatever floating point does.

   Models:
     privagg.encoding.grid:Grid (clamp, quantise_records, _quantise_block, _truncate)
     privagg.encoding.grid:capped_square_sums
     privagg.encoding.grid:_fold_columns
     privagg.programs.sums:bounded (the shrinking of a row that is too long)

   Floats are an oracle: they propose rows of integers, and nothing is assumed of what they
   propose. uint64 is arithmetic modulo 2^64. *)
From Coq Require Import ZArith List Lia Permutation.
From Privagg Require Import Vectors.
Import ListNotations.
Open Scope Z_scope.

(* ---- The clamp (`Grid.clamp`) ---------------------------------------------------------------- *)

Definition clamp (b x : Z) : Z := Z.max (- b) (Z.min b x).

Theorem clamp_keeps_to_its_bound b x : 0 <= b -> - b <= clamp b x <= b.
Proof. unfold clamp; lia. Qed.

Theorem clamp_leaves_what_is_within b x : - b <= x <= b -> clamp b x = x.
Proof. unfold clamp; lia. Qed.

Theorem clamp_moves_no_two_integers_apart b x y : Z.abs (clamp b x - clamp b y) <= Z.abs (x - y).
Proof. unfold clamp; lia. Qed.

Theorem clamp_moves_no_two_vectors_apart b u v :
  square_sum (vsub (map (clamp b) u) (map (clamp b) v)) <= square_sum (vsub u v).
Proof.
  revert v; induction u as [|x u IH]; destruct v as [|y v]; unfold square_sum in *; simpl; try lia.
  specialize (IH v); pose proof (clamp_moves_no_two_integers_apart b x y) as H.
  enough ((clamp b x - clamp b y) * (clamp b x - clamp b y) <= (x - y) * (x - y)) by lia.
  rewrite <- (Z.abs_square (clamp b x - clamp b y)), <- (Z.abs_square (x - y)); nia.
Qed.

Theorem a_weight_multiplies_the_norm w v : square_sum (map (Z.mul w) v) = w * w * square_sum v.
Proof. unfold square_sum; induction v; simpl in *; [lia|]; rewrite IHv; ring. Qed.

(* ---- One record more, at any place among the others ------------------------------------------ *)

Section OneRecord.
  Variables (Record : Type) (d : nat) (S bound : Z).
  Variable row : Record -> list Z.
  Hypothesis row_length : forall r, length (row r) = d.
  Hypothesis row_norm : forall r, square_sum (row r) <= S * S.

  Definition contribution (data : list Record) : list Z :=
    map (clamp bound) (column_sum d (map row data)).

  Theorem a_bounded_record_moves_the_sum_by_at_most_S before r after :
    square_sum (vsub (contribution (before ++ r :: after)) (contribution (before ++ after)))
      <= S * S.
  Proof.
    unfold contribution; eapply Z.le_trans; [apply clamp_moves_no_two_vectors_apart|].
    rewrite !map_app; simpl; rewrite column_sum_insert, vsub_vadd; auto.
    rewrite row_length; symmetry; apply column_sum_length.
    apply Forall_app; split; apply Forall_map, Forall_forall; auto.
  Qed.

  Theorem the_order_of_records_does_not_matter data data' :
    Permutation data data' -> contribution data = contribution data'.
  Proof.
    intros H; unfold contribution; f_equal; apply column_sum_perm; now apply Permutation_map.
  Qed.
End OneRecord.

(* ---- The norm, in 64-bit words (`capped_square_sums`, `_fold_columns`) ----------------------- *)

(* One pass: the upper half is added to the lower and cut at the cap; of an odd number of values the
   last of the lower half stays. *)
Fixpoint add_capped (cap : Z) (left right : list Z) : list Z :=
  match left, right with
  | x :: left', y :: right' => Z.min (u64 (x + y)) cap :: add_capped cap left' right'
  | _, _ => left
  end.
Definition fold_once (cap : Z) (v : list Z) : list Z :=
  let half := Nat.div2 (S (length v)) in add_capped cap (firstn half v) (skipn half v).
Fixpoint fold_columns (passes : nat) (cap : Z) (v : list Z) : list Z :=
  match passes, v with
  | S passes', _ :: _ :: _ => fold_columns passes' cap (fold_once cap v)
  | _, _ => v
  end.
Definition capped_square_sum (limit : Z) (v : list Z) : Z :=
  hd 0 (fold_columns (length v) (limit + 1) (map (fun x => u64 (x * x)) v)).

Definition within (cap : Z) (v : list Z) := Forall (fun x => 0 <= x <= cap) v.

Lemma within_sum_nonneg cap v : within cap v -> 0 <= sum v.
Proof. intros H; apply sum_nonneg; eapply Forall_impl; [|exact H]; simpl; lia. Qed.

Lemma add_capped_length cap u v : length (add_capped cap u v) = length u.
Proof. revert v; induction u; destruct v; simpl; auto. Qed.

Lemma add_capped_spec cap u v : 0 <= cap -> 2 * cap < word -> (length v <= length u)%nat ->
  within cap u -> within cap v ->
  within cap (add_capped cap u v) /\
  Z.min (sum (add_capped cap u v)) cap = Z.min (sum u + sum v) cap.
Proof.
  intros Hcap Hword; revert v; induction u as [|x u IH]; intros [|y v] L Hu Hv;
    cbn [sum add_capped length] in *; try (split; [assumption | lia]).
  inversion Hu; inversion Hv; subst; destruct (IH v) as [Hin Hsum]; auto; try lia.
  assert (E : u64 (x + y) = x + y) by (apply Z.mod_small; lia).
  rewrite E; split; [constructor; auto; lia|].
  pose proof (within_sum_nonneg cap u ltac:(assumption)).
  pose proof (within_sum_nonneg cap v ltac:(assumption)).
  pose proof (within_sum_nonneg cap _ Hin); lia.
Qed.

Lemma half_of_a_row n : (2 * Nat.div2 (S n) >= n /\ (n >= 2 -> Nat.div2 (S n) < n))%nat.
Proof.
  rewrite Nat.div2_div; pose proof (Nat.div_mod (S n) 2 ltac:(lia)).
  pose proof (Nat.mod_upper_bound (S n) 2 ltac:(lia)); lia.
Qed.

Lemma fold_columns_spec passes : forall cap v, 0 <= cap -> 2 * cap < word ->
  (length v <= passes)%nat -> within cap v ->
  Z.min (hd 0 (fold_columns passes cap v)) cap = Z.min (sum v) cap.
Proof.
  induction passes as [|passes IH]; intros cap v Hcap Hword L Hv.
  - destruct v; simpl in *; [auto | lia].
  - destruct v as [|x [|y v]]; cbn [fold_columns]; [auto | simpl; f_equal; lia |].
    set (w := x :: y :: v) in *; unfold fold_once; set (half := Nat.div2 (S (length w))).
    destruct (half_of_a_row (length w)) as [B1 B2]; fold half in B1, B2.
    assert (length w >= 2)%nat by (unfold w; simpl; lia).
    assert (L1 : length (firstn half w) = half) by (rewrite firstn_length; lia).
    assert (L2 : length (skipn half w) = (length w - half)%nat) by apply skipn_length.
    rewrite <- (firstn_skipn half w) in Hv; apply Forall_app in Hv; destruct Hv as [F1 F2].
    destruct (add_capped_spec cap (firstn half w) (skipn half w)) as [C1 C2]; auto; try lia.
    rewrite IH, C2, <- sum_app, firstn_skipn; auto; rewrite add_capped_length; lia.
Qed.

(* What is compared with S^2 is the true sum of squares, cut at S^2 + 1. *)
Theorem the_norm_check_is_exact S v : 1 <= S <= 2 ^ 31 -> Forall (fun x => - S <= x <= S) v ->
  Z.min (capped_square_sum (S * S) v) (S * S + 1) = Z.min (square_sum v) (S * S + 1).
Proof.
  intros HS Hv; unfold capped_square_sum, square_sum.
  assert (HSS : S * S <= 2 ^ 62) by (change (2 ^ 62) with (2 ^ 31 * 2 ^ 31); nia).
  assert (E : map (fun x => u64 (x * x)) v = map (fun x => x * x) v).
  { apply map_ext_in; intros x Hx; rewrite Forall_forall in Hv; specialize (Hv x Hx).
    assert (0 <= x * x <= S * S) by nia; apply Z.mod_small; change word with (4 * 2 ^ 62); lia. }
  rewrite E; apply fold_columns_spec; [lia | change word with (4 * 2 ^ 62); lia | |].
  - now rewrite map_length.
  - apply Forall_map; eapply Forall_impl; [|exact Hv]; simpl; intros; nia.
Qed.

Theorem the_norm_check_accepts_exactly_what_fits S v :
  1 <= S <= 2 ^ 31 -> Forall (fun x => - S <= x <= S) v ->
  (capped_square_sum (S * S) v <= S * S <-> square_sum v <= S * S).
Proof. intros HS Hv; pose proof (the_norm_check_is_exact S v HS Hv); lia. Qed.

(* ---- Rows that floats propose (`_quantise_block`) -------------------------------------------- *)

Section Quantise.
  Variables (Record : Type) (d tries : nat) (S : Z).
  Hypothesis S_range : 1 <= S <= 2 ^ 31.
  Variable proposal : Record -> nat -> list Z.  (* the i-th attempt at a record's row *)
  Hypothesis proposal_length : forall r i, length (proposal r i) = d.

  Fixpoint first_that_fits (r : Record) (next left : nat) : list Z :=
    match left with
    | O => zeros d
    | Datatypes.S left' =>
        let row := map (clamp S) (proposal r next) in
        if capped_square_sum (S * S) row <=? S * S then row
        else first_that_fits r (Datatypes.S next) left'
    end.
  Definition quantise (r : Record) : list Z := first_that_fits r 0 tries.

  Lemma quantise_length r : length (quantise r) = d.
  Proof.
    unfold quantise; generalize 0%nat; induction tries; simpl; intros; [apply repeat_length|].
    destruct (_ <=? _); auto; now rewrite map_length.
  Qed.

  Theorem every_row_leaves_within_S r : square_sum (quantise r) <= S * S.
  Proof.
    unfold quantise; generalize 0%nat; induction tries as [|n IH]; cbn [first_that_fits]; intros i.
    - rewrite square_sum_zeros; nia.
    - destruct (Z.leb_spec (capped_square_sum (S * S) (map (clamp S) (proposal r i))) (S * S));
        auto.
      apply the_norm_check_accepts_exactly_what_fits; auto.
      apply Forall_map, Forall_forall; intros; apply clamp_keeps_to_its_bound; lia.
  Qed.

  Theorem one_record_moves_the_contribution_by_at_most_S bound before r after :
    square_sum (vsub (contribution Record d bound quantise (before ++ r :: after))
                     (contribution Record d bound quantise (before ++ after))) <= S * S.
  Proof.
    apply a_bounded_record_moves_the_sum_by_at_most_S;
      [apply quantise_length | apply every_row_leaves_within_S].
  Qed.
End Quantise.

(* ---- Rows that a program returns (`bounded`) ------------------------------------------------- *)

Definition shrink (S r x : Z) : Z := Z.sgn x * (Z.abs x * S / r).
(* `times` is 1 for a record's row, and 2 for a shard's votes, which replace others. *)
Definition shrunk (times S : Z) (v : list Z) : list Z :=
  if times * square_sum v <=? S * S then v
  else map (shrink S (Z.sqrt (times * square_sum v) + 1)) v.

Lemma shrink_square S r x : 0 <= S -> 0 < r ->
  (shrink S r x * r) * (shrink S r x * r) <= (S * x) * (S * x).
Proof.
  intros HS Hr.
  assert (H : Z.abs (shrink S r x * r) <= Z.abs (S * x)).
  { assert (0 <= Z.abs x * S) by nia.
    pose proof (Z.mul_div_le (Z.abs x * S) r Hr).
    pose proof (Z.div_pos (Z.abs x * S) r ltac:(assumption) Hr).
    unfold shrink; rewrite !Z.abs_mul, (Z.abs_eq S), (Z.abs_eq r), (Z.abs_eq (_ / _)) by lia.
    destruct x; simpl Z.sgn; simpl Z.abs in *; lia. }
  rewrite <- (Z.abs_square (shrink S r x * r)), <- (Z.abs_square (S * x)); nia.
Qed.

Theorem a_row_that_was_shrunk_is_within_S times S v : 0 < times -> 0 <= S ->
  times * square_sum (shrunk times S v) <= S * S.
Proof.
  intros Ht HS; unfold shrunk; destruct (Z.leb_spec (times * square_sum v) (S * S)); auto.
  pose proof (square_sum_nonneg v) as Hv; set (n := times * square_sum v) in *.
  set (r := Z.sqrt n + 1); assert (Hn : 0 <= n) by (unfold n; nia).
  assert (Hr : n < r * r) by (unfold r; rewrite Z.add_1_r; now apply Z.sqrt_spec).
  assert (H1 : 0 < r) by (pose proof (Z.sqrt_nonneg n); unfold r; lia).
  assert (E : square_sum (map (shrink S r) v) * (r * r) <= S * S * square_sum v).
  { clearbody r; unfold square_sum; clear - HS H1.
    induction v as [|x v IH]; simpl; [lia|]; pose proof (shrink_square S r x HS H1); nia. }
  pose proof (square_sum_nonneg (map (shrink S r) v)) as Hm.
  assert (times * square_sum (map (shrink S r) v) * (r * r) <= S * S * n) by (unfold n; nia).
  apply Z.lt_succ_r, (Z.mul_lt_mono_pos_r (r * r)); nia.
Qed.

(* Votes are not negative, so two shards' parts are closer than their norms add up to. *)
Theorem votes_that_replace_others_move_the_sum_by_at_most_S S u v :
  Forall (fun x => 0 <= x) u -> Forall (fun x => 0 <= x) v ->
  2 * square_sum u <= S * S -> 2 * square_sum v <= S * S ->
  square_sum (vsub u v) <= S * S.
Proof.
  intros Hu Hv Bu Bv; enough (square_sum (vsub u v) <= square_sum u + square_sum v) by lia.
  clear Bu Bv; revert v Hv; induction Hu as [|x u Hx Hu IH]; intros v Hv.
  - pose proof (square_sum_nonneg v); simpl; unfold square_sum in *; simpl; lia.
  - destruct Hv as [|y v Hy Hv]; simpl.
    + pose proof (square_sum_nonneg (x :: u)); unfold square_sum in *; simpl in *; lia.
    + specialize (IH v Hv); unfold square_sum in *; simpl; nia.
Qed.
