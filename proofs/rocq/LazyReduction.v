(* Sums of residues that are reduced now and then are the sums modulo the prime.

   Models:
     privagg.kernels.layout:ResidueLayout (lazy_additions)
     privagg.kernels.residues:ResidueSum (add, _reduce; one residue of each payload)

   uint64 is arithmetic modulo 2^64. *)
From Coq Require Import ZArith List Lia.
From Privagg Require Import Vectors.
Import ListNotations.
Open Scope Z_scope.

Definition residue (q x : Z) : Prop := 0 <= x < q.
Definition add_words (total : Z) (xs : list Z) : Z := fold_left (fun t x => u64 (t + x)) xs total.
Definition lazy_additions (q : Z) : Z := (word - 1) / (q - 1).

(* min(x, x - m) on words; then `for step in range(passes - 1, -1, -1)` with m = q << step. *)
Definition subtract_once (x m : Z) : Z := Z.min x (u64 (x - m)).
Fixpoint reduce (passes : nat) (q x : Z) : Z :=
  match passes with
  | O => x
  | S s => reduce s q (subtract_once x (q * 2 ^ Z.of_nat s))
  end.

(* Additions in runs of at most lazy_additions - 1, after each of them a reduction whose passes are
   the run's bit length. *)
Fixpoint lazily (fuel : nat) (q total : Z) (xs : list Z) : Z :=
  match fuel, xs with
  | O, _ | _, [] => total
  | S fuel', _ =>
      let run := Z.to_nat (Z.min (Z.of_nat (length xs)) (lazy_additions q - 1)) in
      let passes := Z.to_nat (Z.log2 (Z.of_nat run) + 1) in
      lazily fuel' q (reduce passes q (add_words total (firstn run xs))) (skipn run xs)
  end.

Lemma add_words_mod total xs : add_words total xs mod word = (total + sum xs) mod word.
Proof.
  revert total; induction xs as [|x xs IH]; intros; simpl; [now rewrite Z.add_0_r|].
  rewrite IH; unfold u64; rewrite Z.add_mod_idemp_l by easy; f_equal; ring.
Qed.

Lemma add_words_is_a_word total xs : 0 <= total < word -> 0 <= add_words total xs < word.
Proof.
  revert total; induction xs as [|x xs IH]; simpl; auto; intros; apply IH.
  apply Z.mod_pos_bound; easy.
Qed.

Lemma residues_sum q xs : Forall (residue q) xs -> 0 <= sum xs <= Z.of_nat (length xs) * (q - 1).
Proof.
  induction 1 as [|x xs Hx _ IH]; simpl length; simpl sum; [lia|].
  rewrite Nat2Z.inj_succ; unfold residue in Hx; nia.
Qed.

Lemma lazy_additions_fit q : 2 <= q -> lazy_additions q * (q - 1) <= word - 1.
Proof. intros; unfold lazy_additions; rewrite Z.mul_comm; apply Z.mul_div_le; lia. Qed.

Theorem lazy_additions_never_wrap q reduced xs : 2 <= q <= word -> residue q reduced ->
  Forall (residue q) xs -> Z.of_nat (length xs) <= lazy_additions q - 1 ->
  add_words reduced xs = reduced + sum xs /\ reduced + sum xs < word.
Proof.
  intros Hq Hr Hx Hn; pose proof (residues_sum q xs Hx); unfold residue in Hr.
  pose proof (lazy_additions_fit q ltac:(lia)).
  assert (B : reduced + sum xs < word) by nia.
  split; auto; rewrite <- (Z.mod_small (reduced + sum xs) word), <- add_words_mod by lia.
  symmetry; apply Z.mod_small, add_words_is_a_word; lia.
Qed.

Lemma subtract_once_spec x m : 0 <= x < word -> 0 <= m <= word ->
  subtract_once x m = if m <=? x then x - m else x.
Proof.
  intros Hx Hm; unfold subtract_once, u64; destruct (Z.leb_spec m x).
  - rewrite Z.mod_small; lia.
  - replace (x - m) with (x - m + word + (-1) * word) by ring.
    rewrite Z.mod_add, Z.mod_small by (unfold word in *; lia); lia.
Qed.

Theorem conditional_subtractions_reduce passes q x : 0 < q -> 0 <= x < word ->
  x < q * 2 ^ Z.of_nat passes ->
  (forall s, (s < passes)%nat -> q * 2 ^ Z.of_nat s <= word) ->
  reduce passes q x = x mod q.
Proof.
  intros Hq; revert x; induction passes as [|s IH]; intros x Hw Hx Hm.
  - simpl; symmetry; apply Z.mod_small; simpl in Hx; lia.
  - cbn [reduce]; set (m := q * 2 ^ Z.of_nat s).
    assert (Hp : 0 < 2 ^ Z.of_nat s) by lia.
    assert (Hmw : 0 < m <= word) by (split; [unfold m; nia | apply Hm; lia]).
    rewrite subtract_once_spec by lia.
    rewrite Nat2Z.inj_succ, Z.pow_succ_r in Hx by lia.
    assert (forall s', (s' < s)%nat -> q * 2 ^ Z.of_nat s' <= word) by auto.
    destruct (Z.leb_spec m x); rewrite IH; auto; try (unfold m in *; lia).
    unfold m; replace (x - q * 2 ^ Z.of_nat s) with (x + (- 2 ^ Z.of_nat s) * q) by ring.
    apply Z.mod_add; lia.
Qed.

(* After n additions a word is below (n + 1) q, and n + 1 <= 2^passes. *)
Theorem a_run_of_additions_reduces_to_the_sum q reduced xs passes :
  2 <= q <= word -> residue q reduced ->
  Forall (residue q) xs -> Z.of_nat (length xs) <= lazy_additions q - 1 ->
  Z.of_nat (length xs) + 1 <= 2 ^ Z.of_nat passes ->
  (forall s, (s < passes)%nat -> 2 ^ Z.of_nat s <= Z.of_nat (length xs)) ->
  reduce passes q (add_words reduced xs) = (reduced + sum xs) mod q.
Proof.
  intros Hq Hr Hx Hn Hs Hl.
  destruct (lazy_additions_never_wrap q reduced xs) as [E B]; auto; rewrite E.
  pose proof (residues_sum q xs Hx); unfold residue in Hr.
  apply conditional_subtractions_reduce; try lia; [nia|].
  intros s Hlt; specialize (Hl s Hlt); pose proof (lazy_additions_fit q ltac:(lia)).
  assert (Hs64 : Z.of_nat s < 64).
  { apply (Z.pow_lt_mono_r_iff 2); [lia | lia |]; fold word; nia. }
  (* 2^s (q - 1) < 2^64, so q - 1 < 2^(64 - s), and q itself is no larger. *)
  assert (E2 : 2 ^ Z.of_nat s * 2 ^ (64 - Z.of_nat s) = word).
  { rewrite <- Z.pow_add_r by lia; unfold word; f_equal; lia. }
  assert (0 < 2 ^ Z.of_nat s) by lia.
  assert (q - 1 < 2 ^ (64 - Z.of_nat s)); nia.
Qed.

Theorem a_lazily_reduced_sum_is_the_sum fuel q total xs :
  2 <= q <= word -> 2 <= lazy_additions q ->
  residue q total -> Forall (residue q) xs -> (length xs <= fuel)%nat ->
  lazily fuel q total xs = (total + sum xs) mod q.
Proof.
  intros Hq HL; revert total xs; induction fuel as [|fuel IH]; intros total xs Ht Hx Hf.
  - destruct xs; [simpl; rewrite Z.add_0_r; symmetry; now apply Z.mod_small | simpl in Hf; lia].
  - destruct xs as [|x xs]; [simpl; rewrite Z.add_0_r; symmetry; now apply Z.mod_small|].
    remember (x :: xs) as ys eqn:Ey; unfold lazily; fold lazily; rewrite Ey; rewrite <- Ey.
    set (run := Z.to_nat (Z.min (Z.of_nat (length ys)) (lazy_additions q - 1))).
    set (passes := Z.to_nat (Z.log2 (Z.of_nat run) + 1)).
    assert (Hlen : (1 <= length ys)%nat) by (rewrite Ey; simpl; lia).
    assert (Hr : 1 <= Z.of_nat run <= Z.of_nat (length ys)
      /\ Z.of_nat run <= lazy_additions q - 1) by (unfold run; lia).
    assert (Hfl : length (firstn run ys) = run) by (rewrite firstn_length; lia).
    rewrite <- (firstn_skipn run ys) in Hx; apply Forall_app in Hx; destruct Hx as [Hx1 Hx2].
    pose proof (Z.log2_spec (Z.of_nat run) ltac:(lia)) as [Hlo Hhi].
    pose proof (Z.log2_nonneg (Z.of_nat run)).
    rewrite (a_run_of_additions_reduces_to_the_sum q total (firstn run ys) passes); auto;
      rewrite ?Hfl; try lia.
    + rewrite IH; auto.
      * rewrite <- (firstn_skipn run ys) at 3; rewrite sum_app, Z.add_assoc.
        apply Z.add_mod_idemp_l; lia.
      * apply Z.mod_pos_bound; lia.
      * rewrite skipn_length; lia.
    + unfold passes; rewrite Z2Nat.id by lia; rewrite Z.add_1_r; lia.
    + intros s Hs; eapply Z.le_trans; [|exact Hlo]; apply Z.pow_le_mono_r; unfold passes in Hs; lia.
Qed.

(* Blocks of a payload that turns out bad are subtracted again, whatever they held. *)
Theorem taking_a_bad_payload_back_is_exact total bad :
  0 <= total < word -> u64 (u64 (total + bad) - bad) = total.
Proof.
  intros H; unfold u64; rewrite Zminus_mod_idemp_l; replace (total + bad - bad) with total by ring.
  apply Z.mod_small; lia.
Qed.
