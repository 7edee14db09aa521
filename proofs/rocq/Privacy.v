(* (epsilon, delta) over finitely many outputs: what accounting rests on.

   Models:
     privagg.privacy.certified.renyi:RenyiBudget (moments, and the way back to epsilon)
     privagg.privacy.certified.certificate:RenyiCertificate (its inequality)
     privagg.privacy.certified.renyi:log_moment (the sum over j; its Gaussian moments stay on paper)
     privagg.privacy.certified.convolution:_split (a cell of losses and its two ends)
     privagg.privacy.certified.search:folded (a sampler at a distance)
     privagg.privacy.noise:IntegerGaussian (releases as post-processing)

   A law is a function on a list of outputs; e stands for exp(epsilon). *)
From Coq Require Import Reals List Lra Psatz.
From Privagg Require Import Sums.
Open Scope R_scope.

Definition law {T} (outs : list T) (P : T -> R) := (forall t, 0 <= P t) /\ rsum outs P = 1.
Definition prob {T} (outs : list T) (P : T -> R) (E : T -> bool) : R :=
  rsum outs (fun t => if E t then P t else 0).
Definition close {T} (outs : list T) (e d : R) (P Q : T -> R) :=
  forall E, prob outs P E <= e * prob outs Q E + d.
Definition likelier {T} (e : R) (P Q : T -> R) (t : T) : bool :=
  if Rle_dec (e * Q t) (P t) then true else false.

Lemma prob_range {T} outs (P : T -> R) E : law outs P -> 0 <= prob outs P E <= 1.
Proof.
  intros [P0 P1]; rewrite <- P1; unfold prob; split.
  - apply rsum_nonneg; intros t; specialize (P0 t); destruct (E t); lra.
  - apply rsum_le; intros t; specialize (P0 t); destruct (E t); lra.
Qed.

(* The tool of all that follows: an event may be replaced by a test with values in [0, 1]. *)
Lemma events_may_be_replaced_by_tests {T} outs e d (P Q f : T -> R) :
  close outs e d P Q -> (forall t, 0 <= f t <= 1) ->
  rsum outs (fun t => P t * f t) <= e * rsum outs (fun t => Q t * f t) + d.
Proof.
  intros H Hf; specialize (H (likelier e P Q)).
  enough (rsum outs (fun t => P t * f t) + - e * rsum outs (fun t => Q t * f t)
          <= prob outs P (likelier e P Q) + - e * prob outs Q (likelier e P Q)) by lra.
  unfold prob; rewrite <- !rsum_mul, <- !rsum_add; apply rsum_le; intros t.
  specialize (Hf t); unfold likelier; destruct (Rle_dec (e * Q t) (P t)); nra.
Qed.

(* ---- Post-processing by a randomised map ----------------------------------------------------- *)

Definition after {T U} (outs : list T) (P : T -> R) (K : T -> U -> R) (u : U) : R :=
  rsum outs (fun t => P t * K t u).

Lemma prob_after {T U} outs (outs' : list U) P (K : T -> U -> R) E :
  prob outs' (after outs P K) E = rsum outs (fun t => P t * prob outs' (K t) E).
Proof.
  unfold prob, after; rewrite (rsum_ext outs _ (fun t => rsum outs' (fun u =>
    if E u then P t * K t u else 0))).
  - rewrite rsum_swap; apply rsum_ext; intros u; destruct (E u); auto; now rewrite rsum_zero.
  - intros t; rewrite <- rsum_mul; apply rsum_ext; intros u; destruct (E u); lra.
Qed.

Theorem post_processing_costs_nothing {T U} outs (outs' : list U) e d (P Q : T -> R) K :
  close outs e d P Q -> (forall t, law outs' (K t)) ->
  close outs' e d (after outs P K) (after outs Q K).
Proof.
  intros H HK E; rewrite !prob_after; apply events_may_be_replaced_by_tests; auto.
  intros t; now apply prob_range.
Qed.

(* ---- Adaptive composition -------------------------------------------------------------------- *)

Definition both {T U} (P : T -> R) (K : T -> U -> R) (o : T * U) : R :=
  P (fst o) * K (fst o) (snd o).

Lemma prob_both {T U} outs (outs' : list U) P (K : T -> U -> R) E :
  prob (list_prod outs outs') (both P K) E
  = rsum outs (fun t => P t * prob outs' (K t) (fun u => E (t, u))).
Proof.
  unfold prob, both; rewrite rsum_prod; apply rsum_ext; intros t; rewrite <- rsum_mul.
  apply rsum_ext; intros u; simpl; destruct (E (t, u)); lra.
Qed.

(* The second mechanism may depend on what the first released. *)
Theorem epsilons_and_deltas_add_up_under_adaptive_composition {T U} outs (outs' : list U)
    e e' d d' (P Q : T -> R) K L :
  0 <= e -> 0 <= e' -> 0 <= d' ->
  law outs P -> law outs Q -> (forall t, law outs' (K t)) -> (forall t, law outs' (L t)) ->
  close outs e d P Q -> (forall t, close outs' e' d' (K t) (L t)) ->
  close (list_prod outs outs') (e * e') (d + d') (both P K) (both Q L).
Proof.
  intros He He' Hd' [P0 P1] [Q0 Q1] HK HL H H' E; rewrite !prob_both.
  set (y := fun t => e' * prob outs' (L t) (fun u => E (t, u))); set (f := fun t => Rmin 1 (y t)).
  assert (Hy : forall t, 0 <= y t).
  { intros t; apply Rmult_le_pos; auto; now apply prob_range. }
  assert (Hf : forall t, 0 <= f t <= 1).
  { intros t; split; [apply Rmin_glb; auto; lra | apply Rmin_l]. }
  apply Rle_trans with (rsum outs (fun t => P t * f t + d' * P t)).
  { apply rsum_le; intros t; rewrite (Rmult_comm d'), <- Rmult_plus_distr_l.
    apply Rmult_le_compat_l; auto.
    pose proof (prob_range outs' (K t) (fun u => E (t, u)) (HK t)).
    pose proof (H' t (fun u => E (t, u))); unfold f, y; apply Rmin_case; lra. }
  rewrite rsum_add, rsum_mul, P1.
  pose proof (events_may_be_replaced_by_tests outs e d P Q f H Hf) as HT.
  enough (rsum outs (fun t => Q t * f t)
          <= e' * rsum outs (fun t => Q t * prob outs' (L t) (fun u => E (t, u)))) by nra.
  rewrite <- rsum_mul; apply rsum_le; intros t.
  apply Rle_trans with (Q t * y t); [|unfold y; lra].
  apply Rmult_le_compat_l; auto; apply Rmin_r.
Qed.

(* ---- A sampler at total-variation distance tau (`folded`) ------------------------------------ *)

Theorem a_samplers_distance_is_folded_into_delta {T} (outs : list T) e d tau P P' Q Q' : 0 <= e ->
  (forall E, prob outs P' E <= prob outs P E + tau) ->
  (forall E, prob outs Q E <= prob outs Q' E + tau) ->
  close outs e d P Q -> close outs e (d + (1 + e) * tau) P' Q'.
Proof. intros He HP HQ H E; specialize (HP E); specialize (HQ E); specialize (H E); nra. Qed.

(* ---- Poisson subsampling --------------------------------------------------------------------- *)

(* `without c` is the output's law where the other records' coins fell as c and the record in
   question is not sampled, `with_ c` where it is; w is the law of the coins. *)
Section Subsampling.
  Context {C T : Type}.
  Variables (coins : list C) (outs : list T) (w : C -> R) (q e d : R) (without with_ : C -> T -> R).
  Hypotheses (w_law : law coins w) (q_range : 0 <= q <= 1) (e_range : 1 <= e) (d_range : 0 <= d).
  Hypothesis without_law : forall c, law outs (without c).

  Definition absent : T -> R := after coins w without.
  Definition present : T -> R := after coins w (fun c t => (1 - q) * without c t + q * with_ c t).

  Lemma prob_mixed c E : prob outs (fun t => (1 - q) * without c t + q * with_ c t) E
    = (1 - q) * prob outs (without c) E + q * prob outs (with_ c) E.
  Proof.
    unfold prob; rewrite <- !rsum_mul, <- rsum_add; apply rsum_ext; intros t; destruct (E t); lra.
  Qed.

  Lemma averaged (x y : C -> R) k : (forall c, x c <= k * y c + q * d) ->
    rsum coins (fun c => w c * x c) <= k * rsum coins (fun c => w c * y c) + q * d.
  Proof.
    intros H; destruct w_law as [w0 w1].
    apply Rle_trans with (rsum coins (fun c => k * (w c * y c) + q * d * w c)).
    - apply rsum_le; intros c; specialize (H c); specialize (w0 c); nra.
    - rewrite rsum_add, !rsum_mul, w1; lra.
  Qed.

  Theorem sampling_amplifies_a_removal : (forall c, close outs e d (with_ c) (without c)) ->
    close outs (1 + q * (e - 1)) (q * d) present absent.
  Proof.
    intros H E; unfold present, absent; rewrite !prob_after; apply averaged; intros c.
    rewrite prob_mixed; specialize (H c E); nra.
  Qed.

  Theorem sampling_amplifies_an_addition : (forall c, close outs e d (without c) (with_ c)) ->
    close outs (1 + q * (e - 1)) (q * d) absent present.
  Proof.
    intros H E; unfold present, absent; rewrite !prob_after; apply averaged; intros c.
    rewrite prob_mixed; specialize (H c E).
    pose proof (prob_range outs (without c) E (without_law c)) as [x0 _].
    set (x := prob outs (without c) E) in *; set (y := prob outs (with_ c) E) in *.
    set (e' := 1 + q * (e - 1)).
    assert (Ee : e - e' = (1 - q) * (e - 1)) by (unfold e'; ring).
    assert (0 <= e - e') by (rewrite Ee; apply Rmult_le_pos; lra).
    assert (0 <= e') by (unfold e'; nra).
    (* times e, to do without a division *)
    apply (Rmult_le_reg_l e); [lra|].
    assert (0 <= e' * q * (e * y + d - x)) by (repeat apply Rmult_le_pos; lra).
    assert (0 <= x * (q * (1 - q) * ((e - 1) * (e - 1)))) by (repeat apply Rmult_le_pos; lra).
    assert (0 <= q * d * (e - e')) by (repeat apply Rmult_le_pos; lra).
    assert (Id : e * (e' * ((1 - q) * x + q * y) + q * d) - e * x =
      e' * q * (e * y + d - x) + x * (q * (1 - q) * ((e - 1) * (e - 1))) + q * d * (e - e'))
      by (unfold e'; ring).
    lra.
  Qed.
End Subsampling.

(* ---- Dominating pairs compose ---------------------------------------------------------------- *)

(* The hockey stick with both weights free; H_gamma is a = 1, b = gamma. *)
Definition stick {T} (outs : list T) (a b : R) (P Q : T -> R) : R :=
  rsum outs (fun t => Rmax 0 (a * P t - b * Q t)).
Definition dominated {T T'} (outs : list T) (P Q : T -> R) (outs' : list T') (A B : T' -> R) :=
  forall a b, 0 <= a -> 0 <= b -> stick outs a b P Q <= stick outs' a b A B.

(* A pair that dominates every round whatever came before dominates the composition by its
   product. *)
Theorem dominating_pairs_compose {T U T' U'} (os : list T) (os2 : list U) (ds : list T')
    (ds2 : list U') P Q K L A B A' B' :
  (forall t, 0 <= P t) -> (forall t, 0 <= Q t) -> (forall u, 0 <= A' u) -> (forall u, 0 <= B' u) ->
  dominated os P Q ds A B -> (forall t, dominated os2 (K t) (L t) ds2 A' B') ->
  dominated (list_prod os os2) (both P K) (both Q L)
            (list_prod ds ds2) (both A (fun _ => A')) (both B (fun _ => B')).
Proof.
  intros P0 Q0 A0 B0 H H' a b Ha Hb; unfold stick, both; rewrite !rsum_prod; simpl.
  (* the second round first, its weights being a P(t) and b Q(t) *)
  apply Rle_trans with (rsum os (fun t => stick ds2 (a * P t) (b * Q t) A' B')).
  { apply rsum_le; intros t; eapply Rle_trans; [|apply (H' t); apply Rmult_le_pos; auto].
    unfold stick; apply Req_le, rsum_ext; intros u; f_equal; ring. }
  (* then the first, its weights being a A'(u) and b B'(u) *)
  unfold stick; rewrite rsum_swap, (rsum_swap ds ds2); apply rsum_le; intros u.
  apply Rle_trans with (stick os (a * A' u) (b * B' u) P Q).
  { unfold stick; apply Req_le, rsum_ext; intros t; f_equal; ring. }
  eapply Rle_trans; [apply H; apply Rmult_le_pos; auto|].
  unfold stick; apply Req_le, rsum_ext; intros t; f_equal; ring.
Qed.

(* The hockey stick at e is the smallest delta. *)
Theorem the_hockey_stick_is_the_least_delta {T} (outs : list T) e d P Q :
  stick outs 1 e P Q <= d <-> close outs e d P Q.
Proof.
  split; intros H.
  - intros E; enough (prob outs P E + - e * prob outs Q E <= stick outs 1 e P Q) by lra.
    unfold prob, stick; rewrite <- rsum_mul, <- rsum_add; apply rsum_le; intros t.
    pose proof (Rmax_l 0 (1 * P t - e * Q t)); pose proof (Rmax_r 0 (1 * P t - e * Q t)).
    destruct (E t); lra.
  - specialize (H (likelier e P Q)).
    enough (stick outs 1 e P Q
            <= prob outs P (likelier e P Q) + - e * prob outs Q (likelier e P Q)) by lra.
    unfold prob, stick; rewrite <- rsum_mul, <- rsum_add; apply rsum_le; intros t.
    unfold likelier; destruct (Rle_dec (e * Q t) (P t)); apply Rmax_case; lra.
Qed.

(* ---- Renyi moments: composition, and the way back to (epsilon, delta) ------------------------ *)

Definition moment {T} (outs : list T) (k : nat) (P Q : T -> R) : R :=
  rsum outs (fun t => Q t * (P t / Q t) ^ k).

Lemma term_nonneg p q k : 0 <= p -> 0 <= q -> 0 <= q * (p / q) ^ k.
Proof.
  intros Hp [Hq| <-]; [|lra].
  apply Rmult_le_pos; [lra|]; apply pow_le, Rmult_le_pos; auto; now apply Rlt_le, Rinv_0_lt_compat.
Qed.

Theorem moments_multiply_under_adaptive_composition {T U} os (os2 : list U) k M (P Q : T -> R) K L :
  (forall t, 0 <= P t) -> (forall t, 0 < Q t) -> (forall t u, 0 < L t u) ->
  (forall t, moment os2 k (K t) (L t) <= M) ->
  moment (list_prod os os2) k (both P K) (both Q L) <= M * moment os k P Q.
Proof.
  intros P0 Q0 L0 H; unfold moment, both; rewrite rsum_prod, <- rsum_mul; apply rsum_le; intros t.
  simpl; apply Rle_trans with (Q t * (P t / Q t) ^ k * moment os2 k (K t) (L t)).
  - unfold moment; rewrite <- rsum_mul; apply Req_le, rsum_ext; intros u.
    replace (P t * K t u / (Q t * L t u)) with (P t / Q t * (K t u / L t u)).
    + rewrite Rpow_mult_distr; ring.
    + specialize (Q0 t); specialize (L0 t u); field; lra.
  - rewrite (Rmult_comm M); apply Rmult_le_compat_l; auto.
    apply term_nonneg; auto; now apply Rlt_le.
Qed.

(* Evidence for epsilon = log e: an order k + 1 and a bound M of that moment with M <= d e^k. *)
Theorem a_moment_bound_certifies_epsilon {T} (outs : list T) k e d M (P Q : T -> R) : 0 < e ->
  (forall t, 0 <= P t) -> (forall t, 0 < Q t) ->
  moment outs (S k) P Q <= M -> M <= d * e ^ k -> close outs e d P Q.
Proof.
  intros He P0 Q0 HM Hd; apply the_hockey_stick_is_the_least_delta.
  assert (Hek : 0 < e ^ k) by now apply pow_lt.
  apply (Rmult_le_reg_r (e ^ k)); auto; eapply Rle_trans; [|exact Hd].
  eapply Rle_trans; [|exact HM]; unfold stick, moment.
  rewrite Rmult_comm, <- rsum_mul; apply rsum_le; intros t.
  specialize (P0 t); specialize (Q0 t); rewrite Rmult_1_l.
  pose proof (term_nonneg (P t) (Q t) (S k) P0 (Rlt_le _ _ Q0)) as HT.
  destruct (Rle_dec (P t) (e * Q t)) as [Hle|Hgt].
  - rewrite Rmax_left by lra; lra.
  - rewrite Rmax_right by lra.
    assert (Hr : e <= P t / Q t).
    { apply (Rmult_le_reg_r (Q t)); auto; unfold Rdiv; rewrite Rmult_assoc, Rinv_l; lra. }
    assert (Hp : e ^ k <= (P t / Q t) ^ k) by (apply pow_incr; lra).
    replace (Q t * (P t / Q t) ^ S k) with (P t * (P t / Q t) ^ k) by (simpl; field; lra).
    apply Rle_trans with (e ^ k * P t); [|nra].
    apply Rmult_le_compat_l; [lra|]; nra.
Qed.

(* With the factor of Canonne, Kamath & Steinke 2020, Proposition 12: alpha = k + 1. *)
Lemma bernoulli n y : 0 <= y -> INR (S n) * y - INR n <= y ^ S n.
Proof.
  intros Hy; induction n as [|n IH]; [simpl; lra|].
  rewrite <- tech_pow_Rmult; apply Rle_trans with (y * (INR (S n) * y - INR n));
    [|now apply Rmult_le_compat_l].
  rewrite !S_INR in *; pose proof (pos_INR n); pose proof (Rle_0_sqr (y - 1)); unfold Rsqr in *.
  nra.
Qed.

Lemma stick_below_power k e x : (0 < k)%nat -> 0 < e -> 0 <= x ->
  x - e <= x ^ S k * (INR k ^ k / (INR (S k) ^ S k * e ^ k)).
Proof.
  intros Hk He Hx; assert (K : 0 < INR k) by now apply lt_0_INR.
  assert (K1 : 0 < INR (S k)) by (apply lt_0_INR; auto with arith).
  pose proof (bernoulli k (x * INR k / (INR (S k) * e))) as B.
  assert (Y : 0 <= x * INR k / (INR (S k) * e)).
  { apply Rmult_le_pos; [nra|]; apply Rlt_le, Rinv_0_lt_compat; nra. }
  specialize (B Y); apply (Rmult_le_compat_r (e / INR k)) in B;
    [|apply Rlt_le, Rdiv_lt_0_compat; lra].
  replace ((INR (S k) * (x * INR k / (INR (S k) * e)) - INR k) * (e / INR k)) with (x - e) in B
    by (field; lra).
  eapply Rle_trans; [exact B|]; apply Req_le; unfold Rdiv.
  rewrite !Rpow_mult_distr, pow_inv, Rpow_mult_distr; simpl (INR k ^ S k); simpl (e ^ S k).
  field; repeat split; try lra; apply pow_nonzero; lra.
Qed.

Theorem a_moment_bound_with_its_factor_certifies_epsilon {T} (outs : list T) k e d M
    (P Q : T -> R) : (0 < k)%nat -> 0 < e -> (forall t, 0 <= P t) -> (forall t, 0 < Q t) ->
  moment outs (S k) P Q <= M -> M * (INR k ^ k / (INR (S k) ^ S k * e ^ k)) <= d ->
  close outs e d P Q.
Proof.
  intros Hk He P0 Q0 HM Hd; apply the_hockey_stick_is_the_least_delta.
  set (c := INR k ^ k / (INR (S k) ^ S k * e ^ k)) in *.
  assert (Hc : 0 <= c).
  { unfold c; apply Rmult_le_pos; [apply pow_le, pos_INR|].
    apply Rlt_le, Rinv_0_lt_compat, Rmult_lt_0_compat; apply pow_lt; auto.
    apply lt_0_INR; auto with arith. }
  apply Rle_trans with (c * moment outs (S k) P Q); [|nra].
  unfold stick, moment; rewrite <- rsum_mul; apply rsum_le; intros t.
  specialize (P0 t); specialize (Q0 t); set (x := P t / Q t).
  assert (Hx : 0 <= x) by (apply Rmult_le_pos; auto; now apply Rlt_le, Rinv_0_lt_compat).
  assert (E : P t = x * Q t) by (unfold x; field; lra).
  pose proof (stick_below_power k e x Hk He Hx) as B; fold c in B.
  assert (0 <= x ^ S k * c) by (apply Rmult_le_pos; auto; now apply pow_le).
  apply Rmax_lub; [nra|]; rewrite E; nra.
Qed.

(* What a certificate says, in logarithms: L bounds the log of the moment of order k + 1. *)
Theorem a_renyi_certificate_certifies_epsilon {T} (outs : list T) k eps d L (P Q : T -> R) :
  (0 < k)%nat -> 0 < d -> (forall t, 0 <= P t) -> (forall t, 0 < Q t) ->
  moment outs (S k) P Q <= exp L ->
  L + INR k * ln (INR k) - INR (S k) * ln (INR (S k)) - ln d <= INR k * eps ->
  close outs (exp eps) d P Q.
Proof.
  intros Hk Hd P0 Q0 HM HL; assert (K : 0 < INR k) by now apply lt_0_INR.
  assert (K1 : 0 < INR (S k)) by (apply lt_0_INR; auto with arith).
  apply (a_moment_bound_with_its_factor_certifies_epsilon outs k (exp eps) d (exp L));
    auto using exp_pos.
  assert (W : forall n y, 0 < y -> y ^ n = exp (INR n * ln y)).
  { intros n y Hy; rewrite <- Rpower_pow by auto; reflexivity. }
  rewrite (W k (INR k)), (W (S k) (INR (S k))), (W k (exp eps)), ln_exp by auto using exp_pos.
  unfold Rdiv; rewrite <- exp_plus, <- exp_Ropp, <- !exp_plus.
  rewrite <- (exp_ln d) by auto.
  assert (X : L + (INR k * ln (INR k) + - (INR (S k) * ln (INR (S k)) + INR k * eps)) <= ln d)
    by lra.
  destruct X as [X|X]; [left; now apply exp_increasing | right; now rewrite X].
Qed.

(* Moments of a sampled round from those of an unsampled one: Mironov, Talwar & Zhang 2019, 3.3. *)
Lemma rsum_sum_f_R0 {T} (l : list T) (g : T -> nat -> R) n :
  rsum l (fun t => sum_f_R0 (g t) n) = sum_f_R0 (fun j => rsum l (fun t => g t j)) n.
Proof. induction n; simpl; auto; now rewrite rsum_add, IHn. Qed.

Theorem a_sampled_moment_is_a_binomial_sum_of_moments {T} (outs : list T) k q (P Q : T -> R) :
  (forall t, 0 < Q t) ->
  moment outs k (fun t => (1 - q) * Q t + q * P t) Q
  = sum_f_R0 (fun j => C k j * q ^ j * (1 - q) ^ (k - j) * moment outs j P Q) k.
Proof.
  intros HQ; unfold moment.
  transitivity (rsum outs (fun t => sum_f_R0 (fun j =>
    C k j * q ^ j * (1 - q) ^ (k - j) * (Q t * (P t / Q t) ^ j)) k)).
  - apply rsum_ext; intros t; specialize (HQ t).
    replace (((1 - q) * Q t + q * P t) / Q t) with (q * (P t / Q t) + (1 - q)) by (field; lra).
    rewrite binomial, scal_sum; apply sum_eq; intros j _; rewrite Rpow_mult_distr; ring.
  - rewrite rsum_sum_f_R0; apply sum_eq; intros j _; now rewrite rsum_mul.
Qed.

(* ---- Discretising a loss (section 11, "Connect the Dots") ------------------------------------ *)

(* Outputs whose likelihood ratio P/Q lies between r1 and r2 may be replaced by two outputs, one of
   ratio r1 and one of ratio r2, with the same total masses: no hockey stick falls. In the plane,
   (P t, Q t) is x (r1, 1) + y (r2, 1) with x, y >= 0, and max(0, .) is subadditive. *)
Section Cell.
  Context {T : Type}.
  Variables (outs : list T) (P Q : T -> R) (r1 r2 : R).
  Hypothesis ratios : r1 < r2.
  Hypothesis in_cell : forall t, r1 * Q t <= P t <= r2 * Q t.

  Definition low (t : T) : R := (r2 * Q t - P t) / (r2 - r1).
  Definition high (t : T) : R := (P t - r1 * Q t) / (r2 - r1).
  (* The two atoms: Q-masses X and Y, P-masses r1 X and r2 Y. *)
  Definition X : R := rsum outs low.
  Definition Y : R := rsum outs high.

  Lemma parts t :
    0 <= low t /\ 0 <= high t /\ Q t = low t + high t /\ P t = r1 * low t + r2 * high t.
  Proof.
    specialize (in_cell t); unfold low, high.
    assert (0 < / (r2 - r1)) by (apply Rinv_0_lt_compat; lra).
    repeat split; try (apply Rmult_le_pos; lra); field; lra.
  Qed.

  Theorem the_two_ends_keep_the_masses_of_a_cell :
    X + Y = rsum outs Q /\ r1 * X + r2 * Y = rsum outs P.
  Proof.
    unfold X, Y; rewrite <- !rsum_mul, <- !rsum_add.
    split; apply rsum_ext; intros t; destruct (parts t) as (_ & _ & HQ & HP); lra.
  Qed.

  Theorem moving_a_cell_to_its_ends_lowers_no_hockey_stick a b : 0 <= a -> 0 <= b ->
    stick outs a b P Q <= Rmax 0 (a * (r1 * X) - b * X) + Rmax 0 (a * (r2 * Y) - b * Y).
  Proof.
    intros Ha Hb.
    assert (HX : 0 <= X) by (apply rsum_nonneg; apply parts).
    assert (HY : 0 <= Y) by (apply rsum_nonneg; apply parts).
    set (m1 := Rmax 0 (a * r1 - b)); set (m2 := Rmax 0 (a * r2 - b)).
    assert (M1 : 0 <= m1 /\ a * r1 - b <= m1) by (split; [apply Rmax_l | apply Rmax_r]).
    assert (M2 : 0 <= m2 /\ a * r2 - b <= m2) by (split; [apply Rmax_l | apply Rmax_r]).
    apply Rle_trans with (m1 * X + m2 * Y).
    - unfold X, Y, stick; rewrite <- !rsum_mul, <- rsum_add; apply rsum_le; intros t.
      destruct (parts t) as (L & H & EQ & EP); rewrite EQ, EP.
      apply Rmax_lub; nra.
    - apply Rplus_le_compat; unfold m1, m2; apply Rmax_case_strong; intros.
      + rewrite Rmult_0_l; apply Rmax_l.
      + eapply Rle_trans; [|apply Rmax_r]; lra.
      + rewrite Rmult_0_l; apply Rmax_l.
      + eapply Rle_trans; [|apply Rmax_r]; lra.
  Qed.
End Cell.

(* An output may be given a larger ratio (+infinity where Q' is 0) ... *)
Theorem raising_a_ratio_dominates {T} (outs : list T) (P P' Q Q' : T -> R) :
  (forall t, P t <= P' t) -> (forall t, Q' t <= Q t) -> dominated outs P Q outs P' Q'.
Proof.
  intros HP HQ a b Ha Hb; apply rsum_le; intros t; specialize (HP t); specialize (HQ t).
  apply Rmax_case; [apply Rmax_l | eapply Rle_trans; [|apply Rmax_r]; nra].
Qed.

(* ... or more mass at the same ratio: masses are rounded up. *)
Theorem rounding_masses_up_dominates {T} (outs : list T) (P Q c : T -> R) : (forall t, 1 <= c t) ->
  dominated outs P Q outs (fun t => c t * P t) (fun t => c t * Q t).
Proof.
  intros Hc a b Ha Hb; apply rsum_le; intros t; specialize (Hc t).
  replace (a * (c t * P t) - b * (c t * Q t)) with (c t * (a * P t - b * Q t)) by ring.
  apply Rmax_case_strong; intros; [apply Rmax_l | eapply Rle_trans; [|apply Rmax_r]; nra].
Qed.
