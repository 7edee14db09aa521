(* Losses on a grid: integer masses of one round, of equal rounds, and of all rounds together.

   Models:
     privagg.privacy.certified.convolution:product (every step, trimming included)
     privagg.privacy.certified.convolution:power
     privagg.privacy.certified.convolution:composed

   Grid point k has the ratio r^k, and masses are whole multiples of 2^-bits. *)
From Coq Require Import ZArith Reals List Bool Permutation Lra Psatz Lia.
From Privagg Require Import Sums Privacy Pairs Polynomials.
Import ListNotations.

(* ---- Losses, rounded up and trimmed -------------------------------------------------------- *)

(* Masses of the losses start, start + 1, ... in grid steps, and of an infinite loss. *)
Record losses := Losses { start : Z; masses : list Z; infinite : Z }.

Section Steps.
  Open Scope Z_scope.
  Variables bits limit : Z.

  Definition up (x : Z) : Z := - Z.shiftr (- x) bits.

  (* Masses at the top join the infinite loss; the list is the wrong way round. *)
  Fixpoint without_top (dropped : Z) (l : list Z) : Z * list Z :=
    match l with
    | [] => (dropped, [])
    | x :: l' =>
        match l' with
        | [] => (dropped, l)
        | _ => if dropped + x <=? limit then without_top (dropped + x) l' else (dropped, l)
        end
    end.
  (* Masses at the bottom move up to the first point that is kept. *)
  Fixpoint moved_up (moved k : Z) (l : list Z) : Z * list Z :=
    match l with
    | [] => (k, [moved])
    | x :: l' =>
        match l' with
        | [] => (k, [moved + x])
        | _ => if moved + x <=? limit then moved_up (moved + x) (k + 1) l'
               else (k, (moved + x) :: l')
        end
    end.
  Definition trimmed (p : losses) : losses :=
    let (dropped, kept) := without_top 0 (rev_append (masses p) []) in
    let (k, l) := moved_up 0 (start p) (rev_append kept []) in
    Losses k l (infinite p + dropped).
  Definition product (p q : losses) : losses :=
    trimmed (Losses (start p + start q) (map up (multiply (masses p) (masses q)))
      (up (infinite p * (total (masses q) + infinite q) + infinite q * total (masses p)))).

  Definition onto (done : option losses) (p : losses) : losses :=
    match done with None => p | Some d => product d p end.
  Fixpoint power_onto (done : option losses) (base : losses) (n : positive) : losses :=
    match n with
    | xH => onto done base
    | xO n' => power_onto done (product base base) n'
    | xI n' => power_onto (Some (onto done base)) (product base base) n'
    end.
  Definition power : losses -> positive -> losses := power_onto None.
  Fixpoint composed_onto (done : option losses) (kinds : list (losses * positive))
      : option losses :=
    match kinds with
    | [] => done
    | (base, n) :: kinds' => composed_onto (Some (onto done (power base n))) kinds'
    end.

  Definition valid (p : losses) := 0 <= infinite p /\ whole (masses p).

  Lemma up_nonneg x : 0 <= x -> 0 <= up x.
  Proof. intros Hx; unfold up; enough (Z.shiftr (- x) bits <= 0) by lia.
    destruct (Z.eq_dec x 0) as [->|]; [simpl; now rewrite Z.shiftr_0_l|].
    apply Z.lt_le_incl, Z.shiftr_neg; lia.
  Qed.
  Lemma up_enough x : 0 <= bits -> x <= 2 ^ bits * up x.
  Proof.
    intros Hb; unfold up; rewrite Z.shiftr_div_pow2 by auto.
    pose proof (Z.mul_div_le (- x) (2 ^ bits)); pose proof (Z.pow_pos_nonneg 2 bits); lia.
  Qed.
  Lemma multiply_whole p q : whole p -> whole q -> whole (multiply p q).
  Proof.
    intros Hp Hq; unfold multiply; destruct (forallb _ _) eqn:E; [|now apply convolve_whole].
    apply Forall_forall; intros x Hx; rewrite forallb_forall in E; specialize (E x Hx).
    apply andb_prop in E as [E _]; lia.
  Qed.
  Lemma without_top_whole l d : whole l -> 0 <= d ->
    whole (snd (without_top d l)) /\ d <= fst (without_top d l).
  Proof.
    intros H; revert d; induction H as [|x l Hx Hl IH]; intros d Hd; simpl;
      [split; [constructor | lia]|].
    destruct l as [|y l']; [split; [now constructor | simpl; lia]|].
    destruct (d + x <=? limit); [|split; [now constructor | simpl; lia]].
    destruct (IH (d + x) ltac:(lia)); split; auto; lia.
  Qed.
  Lemma moved_up_whole l m k : whole l -> 0 <= m -> whole (snd (moved_up m k l)).
  Proof.
    intros H; revert m k; induction H as [|x l Hx Hl IH]; intros m k Hm; simpl.
    - constructor; auto.
    - destruct l as [|y l']; [constructor; auto; lia|].
      destruct (m + x <=? limit); [apply IH; lia | constructor; auto; lia].
  Qed.
  Lemma product_valid p q : valid p -> valid q -> valid (product p q).
  Proof.
    intros [Ip Mp] [Iq Mq]; unfold product, trimmed; simpl; rewrite <- rev_alt.
    set (l := map up _); assert (L : whole l).
    { unfold l; pose proof (multiply_whole _ _ Mp Mq) as H.
      induction H; simpl; constructor; auto using up_nonneg. }
    pose proof (without_top_whole (rev l) 0 (Forall_rev L) ltac:(lia)) as W.
    destruct (without_top 0 (rev l)) as [d kept]; simpl in W; destruct W as [W Hd].
    rewrite <- rev_alt.
    pose proof (moved_up_whole (rev kept) 0 (start p + start q) (Forall_rev W) ltac:(lia)) as U.
    destruct (moved_up _ _ _) as [k l']; split; auto; simpl.
    pose proof (total_nonneg _ Mp); pose proof (total_nonneg _ Mq).
    enough (0 <= up (infinite p * (total (masses q) + infinite q) + infinite q * total (masses p)))
      by lia.
    apply up_nonneg; nia.
  Qed.
  Lemma onto_valid done p : (forall d, done = Some d -> valid d) -> valid p -> valid (onto done p).
  Proof. destruct done; simpl; auto; intros; apply product_valid; auto. Qed.
  Lemma power_onto_valid n done p : (forall d, done = Some d -> valid d) -> valid p ->
    valid (power_onto done p n).
  Proof.
    revert done p; induction n; intros done p Hd Hp; simpl; auto using onto_valid, product_valid.
    apply IHn; auto using product_valid; intros d [= <-]; now apply onto_valid.
  Qed.
End Steps.

(* ---- What integers mean, and that every step goes up --------------------------------------- *)

Section Meaning.
  Open Scope R_scope.
  Variables (bits limit : Z) (r : R).
  Hypotheses (bits_range : (0 <= bits)%Z) (r_range : 0 < r < 1).

  Notation unit := (IZR (2 ^ bits)).

  Fixpoint on_grid (k : Z) (l : list Z) : pair :=
    match l with [] => [] | x :: l' => (IZR x / unit, powerRZ r k) :: on_grid (k + 1)%Z l' end.
  Definition real (p : losses) : pair :=
    (IZR (infinite p) / unit, 0) :: on_grid (start p) (masses p).

  Lemma unit_pos : 0 < unit.
  Proof. apply IZR_lt; now apply Z.pow_pos_nonneg. Qed.
  Lemma rsum_on_grid k l f : rsum (on_grid k l) (fun s => fst s * f (snd s))
    = expect l k (fun i => f (powerRZ r i)) / unit.
  Proof.
    pose proof unit_pos; revert k; induction l; simpl; intros k; [|rewrite IHl]; field; lra.
  Qed.
  Lemma rsum_real p f : rsum (real p) (fun s => fst s * f (snd s))
    = (IZR (infinite p) * f 0 + expect (masses p) (start p) (fun i => f (powerRZ r i))) / unit.
  Proof.
    pose proof unit_pos; unfold real; cbn [rsum fst snd]; rewrite rsum_on_grid; field; lra.
  Qed.
  Lemma real_proper p : valid p -> proper (real p).
  Proof.
    intros [Hi Hm]; pose proof unit_pos; constructor; simpl.
    - split; [|lra]; apply Rmult_le_pos; [now apply IZR_le|]; now apply Rlt_le, Rinv_0_lt_compat.
    - generalize (start p); induction Hm; simpl; constructor; simpl; auto; split.
      + apply Rmult_le_pos; [now apply IZR_le|]; now apply Rlt_le, Rinv_0_lt_compat.
      + apply powerRZ_le; lra.
  Qed.

  Section Point.
    Variables a b : R.
    Hypotheses (a_range : 0 <= a) (b_range : 0 <= b).

    Definition gain (k : Z) : R := Rmax 0 (a - b * powerRZ r k).

    Lemma gain_range k : 0 <= gain k <= a.
    Proof.
      split; [apply Rmax_l | apply Rmax_lub; auto].
      assert (0 <= powerRZ r k) by (apply powerRZ_le; lra); nra.
    Qed.
    Lemma gain_grows k : gain k <= gain (k + 1)%Z.
    Proof.
      apply Rle_max_compat_l; rewrite powerRZ_add by lra; simpl.
      assert (0 <= b * powerRZ r k) by (apply Rmult_le_pos; auto; apply powerRZ_le; lra); nra.
    Qed.
    Lemma worth_real p : worth (real p) a b
      = (IZR (infinite p) * a + expect (masses p) (start p) gain) / unit.
    Proof.
      unfold worth; rewrite (rsum_real p (fun s => Rmax 0 (a - b * s))), Rmult_0_r, Rminus_0_r.
      now rewrite (Rmax_right 0 a).
    Qed.
    Lemma expect_app p q k g :
      expect (p ++ q) k g = expect p k g + expect q (k + Z.of_nat (length p))%Z g.
    Proof.
      revert k; induction p as [|x p IH]; intros k; cbn [app expect length];
        [rewrite Z.add_0_r; lra|].
      rewrite IH, Nat2Z.inj_succ.
      replace (k + Z.succ _)%Z with (k + 1 + Z.of_nat (length p))%Z by lia.
      lra.
    Qed.
    Lemma without_top_goes_up l d k : whole l ->
      let found := without_top limit d l in
      IZR d * a + expect (rev l) k gain <= IZR (fst found) * a + expect (rev (snd found)) k gain.
    Proof.
      intros H; revert d; induction H as [|x l Hx Hl IH]; intros d; simpl; [lra|].
      destruct l as [|y l']; [simpl; lra|].
      destruct (d + x <=? limit)%Z; [|simpl; lra].
      specialize (IH (d + x)%Z); cbv zeta in IH; eapply Rle_trans; [|exact IH].
      change (rev (x :: y :: l')) with (rev (y :: l') ++ [x]); rewrite expect_app; cbn [expect].
      rewrite plus_IZR; apply IZR_le in Hx.
      pose proof (gain_range (k + Z.of_nat (length (rev (y :: l'))))); nra.
    Qed.
    Lemma moved_up_goes_up l m k : whole l -> (0 <= m)%Z ->
      let found := moved_up limit m k l in
      IZR m * gain k + expect l k gain <= expect (snd found) (fst found) gain.
    Proof.
      intros H; revert m k; induction H as [|x l Hx Hl IH]; intros m k Hm; simpl; [lra|].
      destruct l as [|y l']; [cbn [expect snd fst]; rewrite plus_IZR; lra|].
      destruct (m + x <=? limit)%Z; [|cbn [expect snd fst]; rewrite plus_IZR; lra].
      specialize (IH (m + x)%Z (k + 1)%Z ltac:(lia)); cbv zeta in IH.
      eapply Rle_trans; [|exact IH]; rewrite plus_IZR; pose proof (gain_grows k).
      apply IZR_le in Hx; apply IZR_le in Hm; nra.
    Qed.
    Lemma up_goes_up l k : whole l -> expect l k gain <= unit * expect (map (up bits) l) k gain.
    Proof.
      intros H; revert k; induction H as [|x l Hx Hl IH]; intros k; simpl; [lra|].
      specialize (IH (k + 1)%Z); pose proof (IZR_le _ _ (up_enough bits x bits_range)) as E.
      rewrite mult_IZR in E; pose proof (gain_range k); nra.
    Qed.
    Lemma trimming_goes_up p : valid p -> worth (real p) a b <= worth (real (trimmed limit p)) a b.
    Proof.
      intros [Hi Hm]; rewrite !worth_real; pose proof unit_pos.
      apply Rmult_le_compat_r; [now apply Rlt_le, Rinv_0_lt_compat|].
      unfold trimmed; rewrite <- rev_alt.
      pose proof (without_top_goes_up (rev (masses p)) 0 (start p) (Forall_rev Hm)) as T.
      pose proof (without_top_whole limit (rev (masses p)) 0 (Forall_rev Hm) ltac:(lia)) as [W _].
      destruct (without_top limit 0 (rev (masses p))) as [d kept]; simpl in T, W.
      rewrite <- rev_alt.
      pose proof (moved_up_goes_up (rev kept) 0 (start p) (Forall_rev W) ltac:(lia)) as U.
      destruct (moved_up limit 0 (start p) (rev kept)) as [k l]; simpl in U |- *.
      rewrite rev_involutive in T; rewrite plus_IZR; lra.
    Qed.
  End Point.

  (* The integers of two rounds together lie above the pair of both. *)
  Theorem masses_round_up p q : valid p -> valid q ->
    below (times (real p) (real q)) (real (product bits limit p q)).
  Proof.
    intros Hp Hq a b Ha Hb; pose proof unit_pos as U; unfold product.
    set (both := Losses _ _ _); assert (V : valid both).
    { destruct Hp as [Ip Mp], Hq as [Iq Mq].
      pose proof (total_nonneg _ Mp); pose proof (total_nonneg _ Mq); split; simpl.
      - apply up_nonneg; nia.
      - pose proof (multiply_whole _ _ Mp Mq) as W; induction W; simpl; constructor; auto.
        now apply up_nonneg. }
    eapply Rle_trans; [|apply trimming_goes_up; auto].
    destruct Hp as [Ip Mp], Hq as [Iq Mq]; rewrite worth_times, worth_real by auto.
    rewrite (rsum_real p (fun s => worth (real q) a (b * s))), Rmult_0_r.
    assert (E0 : worth (real q) a 0 = (IZR (infinite q) * a + a * IZR (total (masses q))) / unit).
    { rewrite worth_real by (auto; lra).
      rewrite (expect_ext _ _ _ (fun _ => a)), expect_total; auto.
      intros i; unfold gain; rewrite Rmult_0_l, Rminus_0_r; now apply Rmax_right. }
    assert (E1 : expect (masses p) (start p) (fun i => worth (real q) a (b * powerRZ r i))
      = (IZR (infinite q) * a * IZR (total (masses p))
         + expect (convolve (masses p) (masses q)) (start p + start q) (gain a b)) / unit).
    { rewrite expect_convolve.
      rewrite (expect_ext _ _ _ (fun i => / unit * (IZR (infinite q) * a)
        + / unit * expect (masses q) (start q) (fun j => gain a b (i + j)%Z))).
      - assert (L : forall l k c g,
          expect l k (fun i => c + g i) = c * IZR (total l) + expect l k g).
        { clear; induction l; intros k c g; unfold total in *; simpl; [lra|].
          rewrite IHl, plus_IZR; lra. }
        rewrite L, expect_mul; field; lra.
      - intros i; rewrite worth_real by auto.
        rewrite (expect_ext _ _ (gain a (b * powerRZ r i)) (fun j => gain a b (i + j)%Z)).
        + field; lra.
        + intros j; unfold gain; rewrite powerRZ_add by lra; f_equal; ring. }
    rewrite E0, E1; unfold both; simpl; clear E0 E1 V both.
    set (crossed := (infinite p * _ + _)%Z).
    pose proof (IZR_le _ _ (up_enough bits crossed bits_range)) as C; rewrite mult_IZR in C.
    pose proof (up_goes_up a b Ha Hb _ (start p + start q) (multiply_whole _ _ Mp Mq)) as M.
    rewrite long_multiplication_convolves in M by auto.
    assert (C' : IZR crossed = IZR (infinite p) * IZR (infinite q)
      + IZR (infinite p) * IZR (total (masses q)) + IZR (infinite q) * IZR (total (masses p))).
    { unfold crossed; rewrite !plus_IZR, !mult_IZR, plus_IZR; lra. }
    set (e := expect (convolve _ _) _ _) in *; set (f := expect (map _ _) _ _) in *.
    apply (Rmult_le_reg_r (unit * unit)); [nra|].
    replace ((IZR (up bits crossed) * a + f) / unit * (unit * unit))
      with (unit * IZR (up bits crossed) * a + unit * f) by (field; lra).
    match goal with
    | |- ?x <= _ => replace x with (IZR crossed * a + e) by (rewrite C'; field; lra)
    end.
    nra.
  Qed.

  Definition real_of (done : option losses) : pair :=
    match done with None => [(1, 1)] | Some d => real d end.
  Definition valid_of (done : option losses) := forall d, done = Some d -> valid d.

  Lemma real_of_proper done : valid_of done -> proper (real_of done).
  Proof.
    destruct done; simpl; intros H; [apply real_proper; auto|].
    constructor; [simpl; lra | constructor].
  Qed.
  Lemma onto_goes_up done p : valid_of done -> valid p ->
    below (times (real_of done) (real p)) (real (onto bits limit done p)).
  Proof.
    destruct done as [d|]; cbn [real_of onto]; intros Hd Hp; [apply masses_round_up; auto|].
    intros a b _ _; rewrite times_comm, times_one; lra.
  Qed.
  Lemma repeat_proper p n : proper p -> proper (all (repeat p n)).
  Proof. intros H; apply all_proper; induction n; simpl; constructor; auto. Qed.
  Lemma repeat_below p q n : proper p -> proper q -> below p q ->
    below (all (repeat p n)) (all (repeat q n)).
  Proof.
    intros Hp Hq H; induction n; simpl; [intros a b _ _; lra|].
    apply times_below; auto using repeat_proper.
  Qed.
  Lemma times_assoc k l m a b : worth (times k (times l m)) a b = worth (times (times k l) m) a b.
  Proof.
    rewrite !worth_times; unfold times at 2; rewrite rsum_map, rsum_prod; apply rsum_ext; intros s.
    rewrite worth_times, <- rsum_mul; apply rsum_ext; intros t; simpl.
    now rewrite (Rmult_assoc b), Rmult_assoc.
  Qed.
  Lemma in_squares p n a b :
    worth (all (repeat p (n + n))) a b = worth (all (repeat (times p p) n)) a b.
  Proof.
    revert a b; induction n as [|n IH]; intros a b; auto.
    replace (S n + S n)%nat with (S (S (n + n))) by lia; simpl; rewrite times_assoc, !worth_times.
    apply rsum_ext; intros s; now rewrite IH.
  Qed.

  Lemma power_goes_up n done p : valid_of done -> valid p ->
    below (times (real_of done) (all (repeat (real p) (Pos.to_nat n))))
          (real (power_onto bits limit done p n)).
  Proof.
    revert done p.
    assert (S : forall m d p, valid_of d -> valid p ->
      below (times (real_of d) (all (repeat (real p) (m + m))))
        (times (real_of d) (all (repeat (real (product bits limit p p)) m)))).
    { intros m d p Hd Hp; pose proof (product_valid bits limit p p Hp Hp).
      apply times_below; auto using real_of_proper, repeat_proper, real_proper, below_refl.
      intros a b Ha Hb; rewrite in_squares; apply repeat_below;
        auto using real_proper, times_proper, masses_round_up. }
    induction n; intros done p Hd Hp a b Ha Hb; cbn [power_onto].
    - assert (V : valid (onto bits limit done p)) by now apply onto_valid.
      eapply Rle_trans; [|apply IHn; auto using product_valid; now intros d [= <-]].
      eapply Rle_trans; [|apply S; auto; now intros d [= <-]].
      replace (Pos.to_nat n~1) with (1 + (Pos.to_nat n + Pos.to_nat n))%nat by lia.
      cbn [repeat all Nat.add]; rewrite times_assoc.
      cbn [real_of]; apply times_below;
        auto using repeat_proper, real_proper, onto_goes_up, below_refl.
    - eapply Rle_trans; [|apply IHn; auto using product_valid].
      replace (Pos.to_nat n~0) with (Pos.to_nat n + Pos.to_nat n)%nat by lia; now apply S.
    - eapply Rle_trans; [|apply onto_goes_up; auto]; simpl.
      rewrite !worth_times; apply Req_le, rsum_ext; intros s; now rewrite times_one.
  Qed.

  (* Kinds of rounds, each as often as it ran, in any order. *)
  Definition rounds_of (kinds : list (losses * positive)) : list pair :=
    flat_map (fun kind => repeat (real (fst kind)) (Pos.to_nat (snd kind))) kinds.

  Theorem all_rounds_round_up kinds done : Forall (fun kind => valid (fst kind)) kinds ->
    valid_of done ->
    below (times (real_of done) (all (rounds_of kinds)))
          (real_of (composed_onto bits limit done kinds))
    /\ valid_of (composed_onto bits limit done kinds).
  Proof.
    intros H; revert done; induction H as [|[p n] kinds Hp Hk IH]; intros done Hd.
    - simpl; split; auto; intros a b _ _; rewrite times_one; lra.
    - cbn [composed_onto fst snd] in *; pose proof (power_onto_valid bits limit n None p) as Vp.
      fold (power bits limit p n) in Vp; specialize (Vp ltac:(easy) Hp).
      assert (V : valid_of (Some (onto bits limit done (power bits limit p n)))).
      { intros d [= <-]; now apply onto_valid. }
      destruct (IH _ V) as [B W]; split; auto; intros a b Ha Hb; eapply Rle_trans; [|now apply B].
      unfold rounds_of; cbn [flat_map fst snd]; fold (rounds_of kinds).
      set (these := repeat _ _); assert (P : proper (all (rounds_of kinds))).
      { apply all_proper; clear -Hk bits_range r_range; induction Hk as [|[q m] ks Hq _ IHk]; simpl;
          [constructor|]; apply Forall_app; split; auto; apply Forall_forall; intros s Hs.
        apply repeat_spec in Hs; subst; now apply real_proper. }
      apply Rle_trans
        with (worth (times (times (real_of done) (all these)) (all (rounds_of kinds))) a b).
      + rewrite <- times_assoc, !(worth_times (real_of done)); apply Req_le, rsum_ext; intros s.
        now rewrite all_app.
      + apply times_below; auto using below_refl; [apply real_proper; now apply V|].
        intros a' b' Ha' Hb'; eapply Rle_trans; [|apply onto_goes_up; auto].
        apply times_below; auto using below_refl.
        * now apply real_of_proper.
        * apply repeat_proper; now apply real_proper.
        * intros a2 b2 Ha2 Hb2.
          pose proof (power_goes_up n None p ltac:(easy) Hp a2 b2 Ha2 Hb2) as G.
          cbn [real_of] in G; now rewrite times_comm, times_one in G.
  Qed.
End Meaning.
