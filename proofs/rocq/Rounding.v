(* Rounding real noise and adding it to an integer is rounding the sum: a share of integer noise is
   a post-processing of a Gaussian one.

   Models:
     privagg.privacy.noise_table:cumulative_thresholds (the law of one rounded share)
     privagg.privacy.noise:IntegerGaussian.sample

   Reals are the standard library's, rounding Flocq's. *)
From Coq Require Import Reals ZArith Lia Lra.
From Flocq Require Import Core.
Open Scope R_scope.

Definition round_half_up (r : R) : Z := Zfloor (r + / 2).

Theorem rounding_half_up_commutes_with_integer_shifts (x : Z) (noise : R) :
  (x + round_half_up noise)%Z = round_half_up (IZR x + noise).
Proof.
  unfold round_half_up; symmetry; apply Zfloor_imp.
  pose proof (Zfloor_lb (noise + / 2)); pose proof (Zfloor_ub (noise + / 2)).
  rewrite !plus_IZR; lra.
Qed.

(* Every rounding to nearest does so off ties, which have probability 0 for a law with a density. *)
Theorem every_rounding_commutes_off_ties (choice : Z -> bool) (x : Z) (noise : R) :
  noise - IZR (Zfloor noise) <> / 2 ->
  (x + Znearest choice noise)%Z = Znearest choice (IZR x + noise).
Proof.
  intros Hn; symmetry; apply Znearest_imp; rewrite plus_IZR.
  replace (IZR x + noise - (IZR x + IZR (Znearest choice noise)))
    with (noise - IZR (Znearest choice noise)) by ring.
  destruct (Rle_lt_or_eq_dec _ _ (Znearest_half choice noise)) as [H|H]; auto.
  exfalso; apply Hn; revert H; unfold Znearest.
  pose proof (Zfloor_lb noise); pose proof (Zfloor_ub noise).
  destruct (Rcompare_spec (noise - IZR (Zfloor noise)) (/ 2)); auto.
  - rewrite Rabs_pos_eq; lra.
  - rewrite Zceil_floor_neq by (intros E; rewrite E in *; lra).
    rewrite plus_IZR; rewrite Rabs_left1; lra.
Qed.

(* numpy's rule: of two nearest integers the even one. *)
Definition round_half_even (r : R) : Z := Znearest (fun n => negb (Z.even n)) r.

Lemma half_is_a_tie n : Znearest (fun n => negb (Z.even n)) (IZR n + / 2)
  = if Z.even n then n else (n + 1)%Z.
Proof.
  assert (F : Zfloor (IZR n + / 2) = n) by (apply Zfloor_imp; rewrite plus_IZR; lra).
  unfold Znearest; rewrite F; replace (IZR n + / 2 - IZR n) with (/ 2) by lra.
  rewrite Rcompare_Eq by easy; destruct (Z.even n); simpl; auto.
  rewrite Zceil_floor_neq, F; auto; rewrite F; lra.
Qed.

Theorem ties_to_even_do_not_commute_with_odd_shifts (n : Z) : Z.odd n = true ->
  (n + round_half_even (/ 2))%Z <> round_half_even (IZR n + / 2).
Proof.
  intros H; unfold round_half_even; rewrite half_is_a_tie, <- Z.negb_odd, H; simpl.
  rewrite <- (Rplus_0_l (/ 2)); rewrite (half_is_a_tie 0); simpl; lia.
Qed.
