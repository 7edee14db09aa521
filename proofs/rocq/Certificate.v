(* What a convolution certificate says, and the program that checks it.

   Models:
     privagg.privacy.certified.convolution_certificate:_least_steps (its inequality)

   Extract.v makes the program of `accepted`.

   A certificate has the integer masses of one round of each kind, for either direction, on a grid
   of steps 1 / steps, and claims that the composition is (epsilon / steps, delta)-private. That the
   masses lie above a round's is its hypothesis, not its conclusion. *)
From Coq Require Import ZArith Reals List Bool Permutation Lra Psatz Lia.
From Privagg Require Import Sums Privacy Pairs Polynomials Convolution.
Import ListNotations.

Record kind := Kind { rounds : positive; removing : losses; adding : losses }.
Record certificate := Certificate {
  bits : Z;  (* masses are multiples of 2^-bits *)
  limit : Z;  (* at most so much is trimmed at a time; it cannot make a claim wrong *)
  steps : Z;
  epsilon : Z;  (* in steps *)
  delta : Z * Z;
  distance : Z * Z;  (* total variation between what runs and the rounds; fractions *)
  kinds : list kind }.

Section Checking.
  Open Scope Z_scope.

  (* Masses above the point epsilon; k is the list's first point. *)
  Fixpoint beyond (epsilon k : Z) (l : list Z) : list Z :=
    match l with
    | [] => []
    | _ :: l' => if k <=? epsilon then beyond epsilon (k + 1) l' else l
    end.
  (* At most sum of l_i exp(- (i + 1) / steps): exp(- 1 / steps) >= (steps - 1) / steps. *)
  Fixpoint discounted (steps : Z) (l : list Z) : Z :=
    match l with [] => 0 | x :: l' => (x + discounted steps l') * (steps - 1) / steps end.
  (* At least 2^bits exp(n / steps). *)
  Fixpoint grown (bits steps : Z) (n : nat) : Z :=
    match n with
    | O => Z.shiftl 1 bits
    | S n' => - ((- (grown bits steps n' * steps)) / (steps - 1))
    end.

  Definition delta_mass (steps epsilon : Z) (p : losses) : Z :=
    let tail := beyond epsilon (start p) (masses p) in
    infinite p + total tail - discounted steps tail.

  Definition fine (bits : Z) (p : losses) : bool :=
    (0 <=? infinite p) && forallb (Z.leb 0) (masses p)
    && (Z.shiftl 1 bits <=? infinite p + total (masses p)).
  Definition enough (c : certificate) (p : losses) : bool :=
    let '(dn, dd) := delta c in
    let '(tn, td) := distance c in
    let unit := Z.shiftl 1 (bits c) in
    (start p <=? epsilon c + 1)
    && (delta_mass (steps c) (epsilon c) p * dd * td
        + (unit + grown (bits c) (steps c) (Z.to_nat (epsilon c))) * tn * dd <=? dn * unit * td).
  Definition well_formed (c : certificate) : bool :=
    (0 <=? bits c) && (2 <=? steps c) && (0 <=? epsilon c)
    && (0 <? snd (delta c)) && (0 <? snd (distance c)) && (0 <=? fst (distance c)).
  Definition accepted_in (side : kind -> losses) (c : certificate) : bool :=
    forallb (fun k => fine (bits c) (side k)) (kinds c)
    && match composed_onto (bits c) (limit c) None
               (map (fun k => (side k, rounds k)) (kinds c)) with
       | None => false
       | Some p => enough c p
       end.
  Definition accepted (c : certificate) : bool :=
    well_formed c && accepted_in removing c && accepted_in adding c.
End Checking.

Section Soundness.
  Open Scope R_scope.

  Definition ratio (steps : Z) : R := exp (- / IZR steps).

  Lemma exp_grows x y : x <= y -> exp x <= exp y.
  Proof. intros [H| ->]; [apply Rlt_le; now apply exp_increasing | lra]. Qed.
  Lemma below_one steps : (2 <= steps)%Z -> 0 < ratio steps < 1.
  Proof.
    intros H; apply IZR_le in H; unfold ratio; split; [apply exp_pos|].
    rewrite <- exp_0 at 1; apply exp_increasing.
    assert (0 < / IZR steps) by (apply Rinv_0_lt_compat; lra); lra.
  Qed.
  Lemma at_least_linear steps : (2 <= steps)%Z -> IZR (steps - 1) <= IZR steps * ratio steps.
  Proof.
    intros H; apply IZR_le in H; rewrite minus_IZR; unfold ratio.
    pose proof (exp_ineq1_le (- / IZR steps)) as E.
    apply (Rmult_le_compat_l (IZR steps)) in E; [|lra].
    replace (IZR steps * (1 + - / IZR steps)) with (IZR steps - 1) in E by (field; lra); lra.
  Qed.
  Lemma power_is_exp steps k : (2 <= steps)%Z ->
    powerRZ (ratio steps) k = exp (- (IZR k / IZR steps)).
  Proof.
    intros H; apply IZR_le in H; rewrite powerRZ_Rpower by apply exp_pos; unfold Rpower, ratio.
    rewrite ln_exp; f_equal; field; lra.
  Qed.

  Lemma expect_beyond steps e l k : (2 <= steps)%Z -> (k <= e + 1)%Z ->
    expect l k (gain (ratio steps) 1 (exp (IZR e / IZR steps)))
    = expect (beyond e k l) (e + 1) (gain (ratio steps) 1 (exp (IZR e / IZR steps))).
  Proof.
    intros Hs; revert k; induction l as [|x l IH]; intros k Hk; cbn [expect beyond]; auto.
    destruct (Z.leb_spec k e) as [Hle|Hgt].
    - rewrite IH by lia; assert (G : gain (ratio steps) 1 (exp (IZR e / IZR steps)) k = 0).
      { unfold gain; rewrite power_is_exp, <- exp_plus by auto; apply Rmax_left.
        apply IZR_le in Hle; apply IZR_le in Hs.
        assert (0 <= IZR e / IZR steps + - (IZR k / IZR steps)).
        { replace (_ + _) with ((IZR e - IZR k) * / IZR steps) by (field; lra).
          apply Rmult_le_pos; [lra|]; apply Rlt_le, Rinv_0_lt_compat; lra. }
        pose proof (exp_ineq1_le (IZR e / IZR steps + - (IZR k / IZR steps))); lra. }
      rewrite G; lra.
    - replace k with (e + 1)%Z by lia; reflexivity.
  Qed.
  Lemma discounted_is_at_most steps l e : (2 <= steps)%Z -> whole l ->
    (0 <= discounted steps l)%Z /\
    IZR (discounted steps l) <= expect l (e + 1) (fun k => powerRZ (ratio steps) (k - e)).
  Proof.
    intros Hs H; revert e; induction H as [|x l Hx Hl IH]; intros e; cbn [discounted expect];
      [split; [lia | lra]|].
    destruct (IH e) as [D0 _]; destruct (IH (e + 1)%Z) as [_ D]; clear IH.
    set (y := (x + discounted steps l)%Z) in *; assert (Hy : (0 <= y)%Z) by (unfold y; lia).
    assert (Q : (0 <= y * (steps - 1) / steps)%Z) by (apply Z.div_pos; nia).
    split; auto; pose proof (Z.mul_div_le (y * (steps - 1)) steps ltac:(lia)) as M.
    apply IZR_le in M; rewrite !mult_IZR in M; pose proof (at_least_linear steps Hs) as A.
    apply IZR_le in Hs as Hs'; apply IZR_le in Hy; pose proof (below_one steps Hs) as [r0 _].
    assert (B : IZR (y * (steps - 1) / steps) <= IZR y * ratio steps) by nra; clear M A.
    eapply Rle_trans; [exact B|]; replace (e + 1 - e)%Z with 1%Z by lia; simpl (powerRZ _ 1).
    rewrite Rmult_1_r; unfold y; rewrite plus_IZR.
    rewrite (expect_ext l _ _ (fun k => ratio steps * powerRZ (ratio steps) (k - (e + 1)))).
    - rewrite expect_mul; nra.
    - intros k; replace (k - e)%Z with (1 + (k - (e + 1)))%Z by lia.
      rewrite powerRZ_add by lra; simpl; lra.
  Qed.
  Lemma beyond_whole e k l : whole l -> whole (beyond e k l).
  Proof.
    intros H; revert k; induction H; intros k; simpl; [constructor|].
    destruct (k <=? e)%Z; auto; now constructor.
  Qed.

  (* What is read off the composed masses. *)
  Theorem grid_delta bits steps e p : (0 <= bits)%Z -> (2 <= steps)%Z -> valid p ->
    (start p <= e + 1)%Z ->
    worth (real bits (ratio steps) p) 1 (exp (IZR e / IZR steps))
    <= IZR (delta_mass steps e p) / IZR (2 ^ bits).
  Proof.
    intros Hb Hs [Hi Hm] Hstart; pose proof (unit_pos bits Hb) as U.
    rewrite worth_real by (auto using below_one; lra).
    apply Rmult_le_compat_r; [now apply Rlt_le, Rinv_0_lt_compat|].
    rewrite expect_beyond by auto; unfold delta_mass; set (tail := beyond _ _ _).
    assert (Ht : whole tail) by now apply beyond_whole.
    destruct (discounted_is_at_most steps tail e Hs Ht) as [_ D].
    rewrite minus_IZR, plus_IZR, Rmult_1_r.
    enough (expect tail (e + 1) (gain (ratio steps) 1 (exp (IZR e / IZR steps)))
      = IZR (total tail) - expect tail (e + 1) (fun k => powerRZ (ratio steps) (k - e))) by lra.
    clear D; assert (W : forall k, (e + 1 <= k)%Z ->
      gain (ratio steps) 1 (exp (IZR e / IZR steps)) k = 1 - powerRZ (ratio steps) (k - e)).
    { intros k Hk; unfold gain; rewrite !power_is_exp, <- exp_plus by auto.
      apply IZR_le in Hs as Hs'; apply IZR_le in Hk; rewrite plus_IZR in Hk.
      replace (IZR e / IZR steps + - (IZR k / IZR steps)) with (- (IZR (k - e) / IZR steps))
        by (rewrite minus_IZR; field; lra).
      apply Rmax_right.
      enough (exp (- (IZR (k - e) / IZR steps)) <= exp 0) by (rewrite exp_0 in *; lra).
      apply exp_grows; rewrite minus_IZR.
      assert (0 <= (IZR k - IZR e) / IZR steps).
      { apply Rmult_le_pos; [lra|]; apply Rlt_le, Rinv_0_lt_compat; lra. }
      lra. }
    clear Ht; clearbody tail; revert W; generalize (e + 1)%Z; intros k W; revert k W.
    induction tail as [|x l IH]; intros k W; unfold total; simpl; [lra|].
    rewrite W by lia; rewrite plus_IZR; unfold total in IH; rewrite IH; [lra|].
    intros j Hj; apply W; lia.
  Qed.

  Lemma grown_is_enough bits steps n : (0 <= bits)%Z -> (2 <= steps)%Z ->
    IZR (2 ^ bits) * exp (INR n / IZR steps) <= IZR (grown bits steps n).
  Proof.
    intros Hb Hs; pose proof (unit_pos bits Hb) as U; induction n as [|n IH].
    - simpl (INR 0); unfold Rdiv; rewrite Rmult_0_l, exp_0; cbn [grown]; rewrite Z.shiftl_1_l; lra.
    - cbn [grown]; rewrite S_INR; pose proof (IZR_le _ _ Hs) as Hs'.
      set (g := grown bits steps n) in *.
      pose proof (Z.mul_div_le (- (g * steps)) (steps - 1) ltac:(lia)) as M.
      apply IZR_le in M; rewrite mult_IZR, opp_IZR, mult_IZR in M; rewrite opp_IZR.
      set (d := IZR (- (g * steps) / (steps - 1))) in *.
      replace ((INR n + 1) / IZR steps) with (INR n / IZR steps + / IZR steps) by (field; lra).
      rewrite exp_plus; pose proof (at_least_linear steps Hs) as A; unfold ratio in A.
      set (x := exp (INR n / IZR steps)) in *; assert (0 < x) by apply exp_pos.
      rewrite exp_Ropp in A; set (y := exp (/ IZR steps)) in *.
      assert (0 < y) by apply exp_pos; rewrite minus_IZR in *.
      assert (A' : (IZR steps - 1) * y <= IZR steps).
      { apply (Rmult_le_compat_r y) in A; [|lra]; rewrite Rmult_assoc, Rinv_l in A; lra. }
      apply (Rmult_le_reg_l (IZR steps - 1)); [lra|].
      apply Rle_trans with (IZR g * IZR steps); [|lra].
      apply Rle_trans with (IZR (2 ^ bits) * x * ((IZR steps - 1) * y)); [apply Req_le; ring|].
      apply Rmult_le_compat; auto; try lra; [nra | ].
      apply Rmult_le_pos; lra.
  Qed.

  Lemma fine_is_valid bits p : fine bits p = true -> valid p.
  Proof.
    unfold fine; intros H; apply andb_prop in H as [H _]; apply andb_prop in H as [Hi Hm].
    split; [lia|]; apply Forall_forall; intros x Hx; rewrite forallb_forall in Hm.
    specialize (Hm x Hx); lia.
  Qed.

  (* P and Q: what runs; joint A, joint B: the rounds, of which the pairs cover each. *)
  Theorem an_accepted_certificate_is_true {T} side (c : certificate) (outs : list T)
      (A B : list T -> T -> R) (pairs : list pair) (P Q : list T -> R) :
    let r := ratio (steps c) in
    let histories := histories outs (length pairs) in
    let tau := IZR (fst (distance c)) / IZR (snd (distance c)) in
    well_formed c = true -> accepted_in side c = true ->
    (forall h t, 0 <= A h t) -> (forall h t, 0 <= B h t) ->
    Permutation pairs (rounds_of (bits c) r (map (fun k => (side k, rounds k)) (kinds c))) ->
    (forall n l, nth_error (rev pairs) n = Some l ->
      forall h, length h = n -> covers l outs (A h) (B h)) ->
    (forall E, prob histories P E <= prob histories (joint A) E + tau) ->
    (forall E, prob histories (joint B) E <= prob histories Q E + tau) ->
    close histories (exp (IZR (epsilon c) / IZR (steps c)))
      (IZR (fst (delta c)) / IZR (snd (delta c))) P Q.
  Proof.
    intros r hs tau Hwf Hacc A0 B0 Hperm Hcov HP HQ; unfold well_formed in Hwf.
    repeat (apply andb_prop in Hwf as [Hwf ?H]).
    assert (Hb : (0 <= bits c)%Z) by lia; assert (Hs : (2 <= steps c)%Z) by lia.
    pose proof (below_one (steps c) Hs) as r_range; fold r in r_range.
    unfold accepted_in in Hacc; apply andb_prop in Hacc as [Hfine Hend].
    set (listed := map (fun k => (side k, rounds k)) (kinds c)) in *.
    assert (V : Forall (fun kind => valid (fst kind)) listed).
    { unfold listed; rewrite forallb_forall in Hfine; apply Forall_forall; intros x Hx.
      apply in_map_iff in Hx as (k & <- & Hk); simpl; apply (fine_is_valid (bits c)); auto. }
    destruct (all_rounds_round_up (bits c) (limit c) r Hb r_range listed None V ltac:(easy))
      as [G W].
    destruct (composed_onto _ _ _ _) as [p|] eqn:E; [|easy]; specialize (W p eq_refl).
    cbn [real_of] in G; unfold enough in Hend.
    destruct (delta c) as [dn dd], (distance c) as [tn td]; simpl in *.
    apply andb_prop in Hend as [Hstart Hend]; rewrite Z.shiftl_1_l in Hend.
    assert (Pp : Forall proper pairs).
    { apply (Permutation_Forall (Permutation_sym Hperm)); clear -V Hb r_range.
      induction V as [|[q m] ks Hq _ IH]; simpl; [constructor|]; apply Forall_app; split; auto.
      apply Forall_forall; intros s Hin; apply repeat_spec in Hin; subst; now apply real_proper. }
    set (e := exp (IZR (epsilon c) / IZR (steps c))); assert (e0 : 0 < e) by apply exp_pos.
    set (m := delta_mass (steps c) (epsilon c) p) in *.
    assert (C : close hs e (IZR m / IZR (2 ^ bits c)) (joint A) (joint B)).
    { apply (the_pairs_give_a_delta (all pairs)); [lra | now apply grids_compose |].
      rewrite (the_order_of_rounds_does_not_matter _ _ Hperm).
      rewrite <- times_one, times_comm; eapply Rle_trans; [apply G; lra|].
      apply grid_delta; auto; lia. }
    apply (a_samplers_distance_is_folded_into_delta hs e _ tau _ P _ Q) in C; auto; [|lra].
    intros F; eapply Rle_trans; [apply C|]; apply Rplus_le_compat_l.
    pose proof (unit_pos _ Hb) as U; set (u := IZR (2 ^ bits c)) in *.
    pose proof (grown_is_enough (bits c) (steps c) (Z.to_nat (epsilon c)) Hb Hs) as Gr.
    rewrite INR_IZR_INZ, Z2Nat.id in Gr by lia.
    fold e u in Gr; set (g := grown _ _ _) in *.
    apply Z.leb_le, IZR_le in Hend; rewrite plus_IZR, !mult_IZR, plus_IZR in Hend; fold u in Hend.
    assert (D0 : 0 < IZR dd) by (apply IZR_lt; lia).
    assert (T0 : 0 < IZR td) by (apply IZR_lt; lia).
    assert (T1 : 0 <= IZR tn) by (apply IZR_le; lia); unfold tau.
    apply (Rmult_le_reg_r (IZR dd * IZR td * u)); [repeat apply Rmult_lt_0_compat; auto|].
    replace ((IZR m / u + (1 + e) * (IZR tn / IZR td)) * (IZR dd * IZR td * u))
      with (IZR m * IZR dd * IZR td + (u + u * e) * (IZR tn * IZR dd)) by (field; lra).
    replace (IZR dn / IZR dd * (IZR dd * IZR td * u)) with (IZR dn * u * IZR td) by (field; lra).
    eapply Rle_trans; [|exact Hend]; apply Rplus_le_compat_l; rewrite Rmult_assoc.
    apply Rmult_le_compat_r; [now apply Rmult_le_pos, Rlt_le | lra].
  Qed.
End Soundness.
