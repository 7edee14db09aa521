(* Losses on a grid: rounds compose by multiplying the polynomials of their masses.

   Models:
     privagg.privacy.certified.convolution:_product (integer masses: these, scaled, rounded up)
     privagg.privacy.certified.convolution:ConvolutionCurve.bounds (the delta that is read off)

   A grid pair has outputs k = 0, 1, ... of P-mass p_k and Q-mass p_k c r^k: the loss of output k is
   -log c - k log r. An infinite loss is mass on the P side alone, added to delta. *)
From Coq Require Import Reals List Lra Psatz Lia.
From Privagg Require Import Sums Privacy.
Import ListNotations.
Open Scope R_scope.

Fixpoint expect (p : list R) (k : nat) (g : nat -> R) : R :=
  match p with [] => 0 | x :: p' => x * g k + expect p' (S k) g end.
Fixpoint add (p q : list R) : list R :=
  match p, q with x :: p', y :: q' => (x + y) :: add p' q' | [], _ => q | _, [] => p end.
Fixpoint mul (p q : list R) : list R :=
  match p with [] => [] | x :: p' => add (map (Rmult x) q) (0 :: mul p' q) end.

Lemma expect_add p q k g : expect (add p q) k g = expect p k g + expect q k g.
Proof. revert q k; induction p; destruct q; simpl; intros; try lra; rewrite IHp; lra. Qed.
Lemma expect_scale x q k g : expect (map (Rmult x) q) k g = x * expect q k g.
Proof. revert k; induction q; simpl; intros; [lra | rewrite IHq; lra]. Qed.
Lemma expect_mul p q k g : expect (mul p q) k g = expect p k (fun i => expect q i g).
Proof.
  revert k; induction p; simpl; intros; auto.
  rewrite expect_add, expect_scale; simpl; rewrite IHp; lra.
Qed.
Lemma expect_le p k g h : Forall (fun x => 0 <= x) p -> (forall i, g i <= h i) ->
  expect p k g <= expect p k h.
Proof.
  intros Hp H; revert k; induction Hp; simpl; intros; [lra|].
  specialize (H k); specialize (IHHp (S k)); nra.
Qed.
Lemma expect_shift p k g : expect p k g = expect p 0 (fun i => g (k + i)%nat).
Proof.
  assert (E : forall n, expect p (k + n) g = expect p n (fun i => g (k + i)%nat)).
  { induction p; simpl; intros; auto; rewrite plus_n_Sm, IHp; auto. }
  now rewrite <- E, Nat.add_0_r.
Qed.
Lemma rsum_expect {T} (l : list T) p k (g : T -> nat -> R) :
  rsum l (fun t => expect p k (g t)) = expect p k (fun i => rsum l (fun t => g t i)).
Proof.
  revert k; induction p; simpl; intros; [apply rsum_zero|].
  now rewrite rsum_add, rsum_mul, IHp.
Qed.

Section Grid.
  Variable r : R.
  Hypothesis r_range : 0 < r.

  Definition grid_stick (c : R) (p : list R) (a b : R) : R :=
    expect p 0 (fun k => Rmax 0 (a - b * (c * r ^ k))).
  Definition on_grid {T} (outs : list T) (P Q : T -> R) (c : R) (p : list R) :=
    forall a b, 0 <= a -> 0 <= b -> stick outs a b P Q <= grid_stick c p a b.

  (* Rounds compose, adaptively, by multiplication of their mass polynomials. *)
  Theorem grids_compose_by_multiplication {T U} (os : list T) (os2 : list U) P Q K L c c' p p' :
    0 <= c -> 0 <= c' -> Forall (fun x => 0 <= x) p -> Forall (fun x => 0 <= x) p' ->
    (forall t, 0 <= P t) -> (forall t, 0 <= Q t) ->
    on_grid os P Q c p -> (forall t, on_grid os2 (K t) (L t) c' p') ->
    on_grid (list_prod os os2) (both P K) (both Q L) (c' * c) (mul p' p).
  Proof.
    intros Hc Hc' Hp Hp' P0 Q0 H H' a b Ha Hb.
    unfold stick, both; rewrite rsum_prod; simpl.
    apply Rle_trans with (rsum os (fun t => grid_stick c' p' (a * P t) (b * Q t))).
    { apply rsum_le; intros t; eapply Rle_trans; [|apply (H' t); apply Rmult_le_pos; auto].
      unfold stick; apply Req_le, rsum_ext; intros u; f_equal; ring. }
    unfold grid_stick; rewrite rsum_expect, expect_mul; apply expect_le; auto; intros j.
    assert (Hrj : 0 <= r ^ j) by (apply pow_le; lra).
    apply Rle_trans with (stick os a (b * (c' * r ^ j)) P Q).
    { unfold stick; apply Req_le, rsum_ext; intros t; f_equal; ring. }
    eapply Rle_trans; [apply H; auto; repeat apply Rmult_le_pos; auto|].
    unfold grid_stick; rewrite (expect_shift p j); apply expect_le; auto; intros i.
    apply Req_le; f_equal; rewrite pow_add; ring.
  Qed.

  (* Rounding masses up, on the way or at the end, is safe. *)
  Theorem masses_may_be_rounded_up {T} (outs : list T) P Q c p q :
    Forall2 Rle p q -> on_grid outs P Q c p -> on_grid outs P Q c q.
  Proof.
    intros Hpq H a b Ha Hb; eapply Rle_trans; [apply H; auto|]; unfold grid_stick.
    clear H; generalize 0%nat; induction Hpq as [|x y p' q' Hxy _ IH]; simpl; intros k; [lra|].
    specialize (IH (S k)); pose proof (Rmax_l 0 (a - b * (c * r ^ k))).
    assert (x * Rmax 0 (a - b * (c * r ^ k)) <= y * Rmax 0 (a - b * (c * r ^ k))) by nra.
    lra.
  Qed.

  (* What is read off at the end. *)
  Theorem the_grid_gives_a_delta {T} (outs : list T) P Q c p e d : 0 <= e -> on_grid outs P Q c p ->
    expect p 0 (fun k => Rmax 0 (1 - e * (c * r ^ k))) <= d -> close outs e d P Q.
  Proof.
    intros He H Hd; apply the_hockey_stick_is_the_least_delta.
    eapply Rle_trans; [apply H; lra | exact Hd].
  Qed.
End Grid.
