(* Polynomials with whole coefficients, multiplied by one multiplication of long integers.

   Models:
     privagg.privacy.certified.convolution:product (its multiplication, which python-flint does) *)
From Coq Require Import ZArith Reals List Bool Lra Psatz Lia.
Import ListNotations.

Section Polynomials.
  Open Scope Z_scope.

  Fixpoint plus (p q : list Z) : list Z :=
    match p, q with x :: p', y :: q' => (x + y) :: plus p' q' | [], _ => q | _, [] => p end.
  Fixpoint convolve (p q : list Z) : list Z :=
    match p with [] => [] | x :: p' => plus (map (Z.mul x) q) (0 :: convolve p' q) end.
  Definition total (p : list Z) : Z := fold_right Z.add 0 p.

  (* The same by one multiplication of long integers: coefficients are digits of w bits. *)
  Fixpoint value (w : Z) (p : list Z) : Z :=
    match p with [] => 0 | x :: p' => x + Z.shiftl (value w p') w end.
  Fixpoint in_pairs (w : Z) (p : list Z) : list Z :=
    match p with x :: y :: p' => (x + Z.shiftl y w) :: in_pairs w p' | _ => p end.
  Fixpoint packed (levels : nat) (w : Z) (p : list Z) : Z :=
    match levels with O => value w p | S n => packed n (2 * w) (in_pairs w p) end.
  Fixpoint halved (w : Z) (p : list Z) : list Z :=
    match p with [] => [] | x :: p' =>
      let y := Z.shiftr x w in (x - Z.shiftl y w) :: y :: halved w p' end.
  Fixpoint digits (levels : nat) (w : Z) (x : Z) : list Z :=
    match levels with O => [x] | S n => halved w (digits n (2 * w) x) end.
  Definition levels_for (p q : list Z) : nat :=
    Z.to_nat (Z.log2_up (Z.of_nat (length p) + Z.of_nat (length q))).
  Definition multiply (p q : list Z) : list Z :=
    let w := Z.log2 (total p * total q) + 1 in
    let n := levels_for p q in
    let found := digits n w (packed n w p * packed n w q) in
    if forallb (fun x => (0 <=? x) && (x <? Z.shiftl 1 w)) found then found else convolve p q.

  Definition whole (p : list Z) := Forall (fun x => 0 <= x) p.

  Lemma total_nonneg p : whole p -> 0 <= total p.
  Proof. induction 1; simpl; lia. Qed.
  Lemma plus_whole p q : whole p -> whole q -> whole (plus p q).
  Proof.
    intros H; revert q; induction H; intros q Hq; simpl; auto.
    destruct Hq; constructor; auto; try lia; now apply IHForall.
  Qed.
  Lemma scaled_whole x q : 0 <= x -> whole q -> whole (map (Z.mul x) q).
  Proof. intros Hx; induction 1; simpl; constructor; auto; nia. Qed.
  Lemma convolve_whole p q : whole p -> whole q -> whole (convolve p q).
  Proof.
    intros H Hq; induction H; simpl; [constructor|].
    apply plus_whole; [now apply scaled_whole | constructor; auto; lia].
  Qed.
  Lemma total_plus p q : total (plus p q) = total p + total q.
  Proof.
    revert q; induction p as [|x p IH]; intros [|y q]; simpl; try lia.
    unfold total in *; rewrite IH; lia.
  Qed.
  Lemma total_scaled x q : total (map (Z.mul x) q) = x * total q.
  Proof. induction q; unfold total in *; simpl; lia. Qed.
  Lemma total_convolve p q : total (convolve p q) = total p * total q.
  Proof.
    induction p as [|x p IH]; simpl; auto; rewrite total_plus, total_scaled.
    unfold total in *; simpl; rewrite IH; lia.
  Qed.
  Lemma at_most_total p x : whole p -> In x p -> x <= total p.
  Proof.
    induction 1 as [|y p Hy Hp IH]; simpl; [easy|]; intros [->|Hx].
    - pose proof (total_nonneg p Hp); unfold total in *; lia.
    - specialize (IH Hx); unfold total in *; lia.
  Qed.

  Section Width.
    Variable w : Z.
    Hypothesis w_range : 0 <= w.

    Lemma value_plus p q : value w (plus p q) = value w p + value w q.
    Proof.
      revert q; induction p as [|x p IH]; intros [|y q]; simpl; try lia.
      rewrite IH, !Z.shiftl_mul_pow2 by auto; lia.
    Qed.
    Lemma value_scaled x q : value w (map (Z.mul x) q) = x * value w q.
    Proof. induction q; simpl; try lia; rewrite IHq, !Z.shiftl_mul_pow2 by auto; lia. Qed.
    Lemma value_convolve p q : value w (convolve p q) = value w p * value w q.
    Proof.
      induction p as [|x p IH]; simpl; auto; rewrite value_plus, value_scaled; simpl.
      rewrite IH, !Z.shiftl_mul_pow2 by auto; lia.
    Qed.
  End Width.

  Lemma value_in_pairs w p : 0 <= w -> value (2 * w) (in_pairs w p) = value w p.
  Proof.
    intros Hw; enough (value (2 * w) (in_pairs w p) = value w p
      /\ forall x, value (2 * w) (in_pairs w (x :: p)) = value w (x :: p)) by tauto.
    induction p as [|y p [IH1 IH2]]; cbn [in_pairs value].
    - split; auto; intros x; now rewrite !Z.shiftl_0_l.
    - split; [apply IH2|]; intros x; rewrite IH1, !Z.shiftl_mul_pow2 by lia.
      replace (2 ^ (2 * w)) with (2 ^ w * 2 ^ w) by (rewrite <- Z.pow_add_r; f_equal; lia); lia.
  Qed.
  Lemma value_packed n w p : 0 <= w -> packed n w p = value w p.
  Proof.
    revert w p; induction n; cbn [packed]; intros w p Hw; auto.
    rewrite IHn by lia; now apply value_in_pairs.
  Qed.
  Lemma value_halved w p : 0 <= w -> value w (halved w p) = value (2 * w) p.
  Proof.
    intros Hw; induction p as [|x p IH]; cbn [halved value]; auto.
    rewrite IH, !Z.shiftl_mul_pow2 by lia.
    replace (2 ^ (2 * w)) with (2 ^ w * 2 ^ w) by (rewrite <- Z.pow_add_r; f_equal; lia); lia.
  Qed.
  Lemma value_digits n w x : 0 <= w -> value w (digits n w x) = x.
  Proof.
    revert w; induction n; cbn [digits value]; intros w Hw; [rewrite Z.shiftl_0_l; lia|].
    rewrite value_halved, IHn by lia; auto.
  Qed.
End Polynomials.

(* What masses are worth where point k counts g k. *)
Section Expectation.
  Open Scope R_scope.

  Fixpoint expect (p : list Z) (k : Z) (g : Z -> R) : R :=
    match p with [] => 0 | x :: p' => IZR x * g k + expect p' (k + 1)%Z g end.

  Lemma expect_ext p k g h : (forall i, g i = h i) -> expect p k g = expect p k h.
  Proof. intros H; revert k; induction p; simpl; intros; auto; now rewrite H, IHp. Qed.
  Lemma expect_shift p k j g : expect p (k + j)%Z g = expect p j (fun i => g (k + i)%Z).
  Proof. revert j; induction p; simpl; intros; auto; now rewrite <- IHp, Z.add_assoc. Qed.
  Lemma expect_plus p q k g : expect (plus p q) k g = expect p k g + expect q k g.
  Proof.
    revert q k; induction p; destruct q; simpl; intros; try lra; rewrite IHp, plus_IZR; lra.
  Qed.
  Lemma expect_scaled x q k g : expect (map (Z.mul x) q) k g = IZR x * expect q k g.
  Proof. revert k; induction q; simpl; intros; [lra|]; rewrite IHq, mult_IZR; lra. Qed.
  Lemma expect_convolve p q k j g :
    expect (convolve p q) (k + j)%Z g = expect p k (fun i => expect q j (fun i' => g (i + i')%Z)).
  Proof.
    revert k; induction p as [|x p IH]; simpl; intros k; auto.
    rewrite expect_plus, expect_scaled; simpl.
    replace (k + j + 1)%Z with (k + 1 + j)%Z by lia; rewrite IH, expect_shift; lra.
  Qed.
  Lemma expect_le p k g h : whole p -> (forall i, g i <= h i) -> expect p k g <= expect p k h.
  Proof.
    intros Hp H; revert k; induction Hp as [|x p Hx _ IH]; simpl; intros k; [lra|].
    apply IZR_le in Hx; specialize (H k); specialize (IH (k + 1)%Z); nra.
  Qed.
  Lemma expect_nonneg p k g : whole p -> (forall i, 0 <= g i) -> 0 <= expect p k g.
  Proof.
    intros Hp H; revert k; induction Hp as [|x p Hx _ IH]; simpl; intros k; [lra|].
    apply IZR_le in Hx; specialize (H k); specialize (IH (k + 1)%Z); nra.
  Qed.
  Lemma expect_total p k c : expect p k (fun _ => c) = c * IZR (total p).
  Proof.
    revert k; induction p; intros k; unfold total in *; simpl; [lra|].
    rewrite IHp, plus_IZR; lra.
  Qed.
  Lemma expect_mul p k c g : expect p k (fun i => c * g i) = c * expect p k g.
  Proof. revert k; induction p; simpl; intros; [lra|]; rewrite IHp; lra. Qed.

  (* Digits within their range are a number's only ones. *)
  Lemma equal_digits w p q k g : (0 <= w)%Z ->
    Forall (fun x => 0 <= x < 2 ^ w)%Z p -> Forall (fun x => 0 <= x < 2 ^ w)%Z q ->
    value w p = value w q -> expect p k g = expect q k g.
  Proof.
    intros Hw Hp; revert q k; induction Hp as [|x p Hx Hp IH]; intros q k Hq; simpl.
    - intros E; symmetry; revert k E; induction Hq as [|y q Hy Hq IHq]; simpl; intros k E; auto.
      assert (B : (0 <= value w q)%Z).
      { clear -Hq Hw; induction Hq; simpl; [lia|]; rewrite Z.shiftl_mul_pow2 by auto.
        pose proof (Z.pow_nonneg 2 w); nia. }
      rewrite Z.shiftl_mul_pow2 in E by auto; pose proof (Z.pow_pos_nonneg 2 w).
      rewrite IHq by nia; replace y with 0%Z by nia; lra.
    - destruct Hq as [|y q Hy Hq]; simpl; rewrite ?Z.shiftl_mul_pow2 by auto; intros E.
      + assert (B : (0 <= value w p)%Z).
        { clear -Hp Hw; induction Hp; simpl; [lia|]; rewrite Z.shiftl_mul_pow2 by auto.
          pose proof (Z.pow_nonneg 2 w); nia. }
        pose proof (Z.pow_pos_nonneg 2 w).
        rewrite (IH [] (k + 1)%Z) by (auto; simpl; nia); simpl; replace x with 0%Z by nia; lra.
      + assert (Ex : x = y).
        { apply (f_equal (fun z => z mod 2 ^ w)%Z) in E.
          now rewrite !Z_mod_plus_full, !Z.mod_small in E. }
        subst y; f_equal; apply IH; auto; pose proof (Z.pow_pos_nonneg 2 w); nia.
  Qed.
  Theorem long_multiplication_convolves p q k g : whole p -> whole q ->
    expect (multiply p q) k g = expect (convolve p q) k g.
  Proof.
    intros Hp Hq; unfold multiply; set (w := (Z.log2 (total p * total q) + 1)%Z).
    set (n := levels_for p q); destruct (forallb _ _) eqn:E; auto.
    assert (Hw : (0 <= w)%Z) by (unfold w; pose proof (Z.log2_nonneg (total p * total q)); lia).
    apply (equal_digits w); auto.
    - apply Forall_forall; intros x Hx; rewrite forallb_forall in E; specialize (E x Hx).
      rewrite Z.shiftl_1_l in E; apply andb_prop in E as [E1 E2]; lia.
    - apply Forall_forall; intros x Hx; pose proof (convolve_whole p q Hp Hq) as C; split.
      + now apply (proj1 (Forall_forall _ _) C).
      + apply (at_most_total _ _ C) in Hx; rewrite total_convolve in Hx.
        pose proof (total_nonneg p Hp); pose proof (total_nonneg q Hq).
        destruct (Z.eq_dec (total p * total q) 0) as [Z0|N0].
        * rewrite Z0 in Hx; pose proof (Z.pow_pos_nonneg 2 w); lia.
        * pose proof (Z.log2_spec (total p * total q) ltac:(nia)); unfold w.
          replace (Z.log2 _ + 1)%Z with (Z.succ (Z.log2 (total p * total q))) by lia; lia.
    - rewrite value_digits, !value_packed, value_convolve by auto; auto.
  Qed.
End Expectation.
