(* Pairs of laws as lists of masses and ratios, and how rounds compose by multiplying them.

   Models:
     privagg.privacy.certified.convolution:composed (rounds, in any order)

   An output of P-mass p and of Q-mass p s has the ratio s = exp(- loss), which is 0 where the loss
   is infinite. *)
From Coq Require Import Reals List Permutation Lra Psatz Lia.
From Privagg Require Import Sums Privacy.
Import ListNotations.

Section Pairs.
  Open Scope R_scope.

  Definition pair := list (R * R).
  Definition worth (l : pair) (a b : R) : R := rsum l (fun s => fst s * Rmax 0 (a - b * snd s)).
  Definition proper (l : pair) := Forall (fun s => 0 <= fst s /\ 0 <= snd s) l.
  Definition covers {T} (l : pair) (outs : list T) (P Q : T -> R) :=
    forall a b, 0 <= a -> 0 <= b -> stick outs a b P Q <= worth l a b.
  Definition below (l l' : pair) := forall a b, 0 <= a -> 0 <= b -> worth l a b <= worth l' a b.
  Definition times (l l' : pair) : pair :=
    map (fun st => (fst (fst st) * fst (snd st), snd (fst st) * snd (snd st))) (list_prod l l').
  Fixpoint all (ls : list pair) : pair :=
    match ls with [] => [(1, 1)] | l :: ls' => times l (all ls') end.

  Lemma rsum_map {A B} (l : list A) (f : A -> B) g : rsum (map f l) g = rsum l (fun x => g (f x)).
  Proof. induction l; simpl; auto; now rewrite IHl. Qed.
  Lemma rsum_below (l : pair) f g : proper l ->
    (forall s, 0 <= fst s -> 0 <= snd s -> f s <= g s) -> rsum l f <= rsum l g.
  Proof.
    induction 1 as [|s l [Hm Hs] _ IH]; simpl; intros H; [lra|].
    specialize (H s Hm Hs) as Hs'; specialize (IH H); lra.
  Qed.

  Lemma worth_times l l' a b :
    worth (times l l') a b = rsum l (fun s => fst s * worth l' a (b * snd s)).
  Proof.
    unfold worth, times; rewrite rsum_map, rsum_prod; apply rsum_ext; intros s; simpl.
    rewrite <- rsum_mul; apply rsum_ext; intros t.
    rewrite Rmult_assoc, (Rmult_assoc b); reflexivity.
  Qed.
  Lemma times_comm l l' a b : worth (times l l') a b = worth (times l' l) a b.
  Proof.
    unfold worth, times; rewrite !rsum_map, !rsum_prod, rsum_swap; simpl.
    apply rsum_ext; intros t; apply rsum_ext; intros s.
    now rewrite (Rmult_comm (fst s)), (Rmult_comm (snd s)).
  Qed.
  Lemma times_proper l l' : proper l -> proper l' -> proper (times l l').
  Proof.
    unfold proper; rewrite !Forall_forall; unfold times; intros H H' s Hs.
    apply in_map_iff in Hs as ([t t'] & <- & Ht); apply in_prod_iff in Ht as [Ht Ht'].
    specialize (H t Ht); specialize (H' t' Ht'); simpl; split; apply Rmult_le_pos; tauto.
  Qed.
  Lemma all_proper ls : Forall proper ls -> proper (all ls).
  Proof.
    induction 1; simpl; [|now apply times_proper].
    constructor; [simpl; lra | constructor].
  Qed.

  (* A pair may be replaced by one that lies above it, on either side. *)
  Lemma times_below l l' k k' : proper k -> proper l' -> below l k -> below l' k' ->
    below (times l l') (times k k').
  Proof.
    intros Hk Hl' H H' a b Ha Hb; rewrite times_comm, worth_times.
    apply Rle_trans with (worth (times l' k) a b).
    - rewrite worth_times; apply rsum_below; auto; intros s Hm Hs.
      apply Rmult_le_compat_l; auto; apply H; auto; now apply Rmult_le_pos.
    - rewrite times_comm, !worth_times; apply rsum_below; auto; intros s Hm Hs.
      apply Rmult_le_compat_l; auto; apply H'; auto; now apply Rmult_le_pos.
  Qed.
  Lemma below_refl l : below l l.
  Proof. intros a b _ _; lra. Qed.
  Lemma worth_one a b : worth [(1, 1)] a b = Rmax 0 (a - b).
  Proof. unfold worth; simpl; rewrite Rmult_1_r; lra. Qed.
  Lemma times_one l a b : worth (times l [(1, 1)]) a b = worth l a b.
  Proof. rewrite worth_times; apply rsum_ext; intros s; now rewrite worth_one. Qed.
  Lemma all_app ls ls' a b : worth (all (ls ++ ls')) a b = worth (times (all ls) (all ls')) a b.
  Proof.
    revert a b; induction ls as [|l ls IH]; intros a b; simpl.
    - now rewrite times_comm, times_one.
    - rewrite !worth_times; unfold times; rewrite rsum_map, rsum_prod; apply rsum_ext; intros s.
      rewrite IH, worth_times, <- rsum_mul; apply rsum_ext; intros t; simpl.
      now rewrite (Rmult_assoc b), Rmult_assoc.
  Qed.
  Lemma the_order_of_rounds_does_not_matter ls ls' : Permutation ls ls' ->
    forall a b, worth (all ls) a b = worth (all ls') a b.
  Proof.
    induction 1; intros a b; auto.
    - simpl; rewrite !worth_times; apply rsum_ext; intros s; now rewrite IHPermutation.
    - simpl; rewrite !worth_times.
      transitivity (rsum y (fun s => rsum x (fun t =>
        fst s * fst t * worth (all l) a (b * snd s * snd t)))).
      + apply rsum_ext; intros s; rewrite worth_times, <- rsum_mul; apply rsum_ext; intros; ring.
      + rewrite rsum_swap; apply rsum_ext; intros t; rewrite worth_times, <- rsum_mul.
        apply rsum_ext; intros s; rewrite <- Rmult_assoc, (Rmult_comm (fst s)).
        f_equal; f_equal; ring.
    - now rewrite IHPermutation1.
  Qed.

  (* Two rounds, the second of which may depend on what the first released. *)
  Lemma two_rounds_are_covered {T U} (os : list T) (os2 : list U) P Q K L l l' : proper l' ->
    (forall t, 0 <= P t) -> (forall t, 0 <= Q t) ->
    covers l os P Q -> (forall t, covers l' os2 (K t) (L t)) ->
    covers (times l' l) (list_prod os os2) (both P K) (both Q L).
  Proof.
    intros Hl' P0 Q0 H H' a b Ha Hb; unfold stick, both; rewrite rsum_prod; simpl.
    apply Rle_trans with (rsum os (fun t => worth l' (a * P t) (b * Q t))).
    { apply rsum_le; intros t; eapply Rle_trans; [|apply (H' t); apply Rmult_le_pos; auto].
      unfold stick; apply Req_le, rsum_ext; intros u; f_equal; ring. }
    unfold worth at 1; rewrite rsum_swap, worth_times; apply rsum_below; auto; intros s Hm Hs.
    rewrite rsum_mul; apply Rmult_le_compat_l; auto.
    eapply Rle_trans; [|apply H; auto; now apply Rmult_le_pos].
    unfold stick; apply Req_le, rsum_ext; intros t; f_equal; ring.
  Qed.

  (* Any number of rounds, each of which may depend on all that was released before it. *)
  Section Run.
    Context {T : Type}.
    Variables (outs : list T) (P Q : list T -> T -> R).

    Fixpoint histories (n : nat) : list (list T) :=
      match n with
      | O => [[]]
      | S n' => map (fun ht => snd ht :: fst ht) (list_prod (histories n') outs)
      end.
    Fixpoint joint (K : list T -> T -> R) (h : list T) : R :=
      match h with [] => 1 | t :: h' => joint K h' * K h' t end.

    Lemma joint_nonneg K : (forall h t, 0 <= K h t) -> forall h, 0 <= joint K h.
    Proof. intros H h; induction h; simpl; [lra|]; now apply Rmult_le_pos. Qed.

    (* rounds: the pairs that cover them, the last round's first *)
    Theorem grids_compose (rounds : list pair) : Forall proper rounds ->
      (forall h t, 0 <= P h t) -> (forall h t, 0 <= Q h t) ->
      (forall n l, nth_error (rev rounds) n = Some l ->
        forall h, length h = n -> covers l outs (P h) (Q h)) ->
      covers (all rounds) (histories (length rounds)) (joint P) (joint Q).
    Proof.
      intros Hp P0 Q0; induction Hp as [|l rounds Hl Hp IH]; intros H.
      - intros a b Ha Hb; unfold stick; simpl; rewrite worth_one, !Rmult_1_r; lra.
      - simpl in *; rename rounds into ls.
        assert (C : covers (all ls) (histories (length ls)) (joint P) (joint Q)).
        { apply IH; intros n k Hn; apply H; rewrite nth_error_app1; auto.
          apply nth_error_Some; congruence. }
        assert (C' : forall h, length h = length ls -> covers l outs (P h) (Q h)).
        { intros h Eh; apply (H (length ls)); auto.
          rewrite nth_error_app2, rev_length, Nat.sub_diag; [auto | rewrite rev_length; auto]. }
        intros a b Ha Hb; unfold stick; rewrite rsum_map; simpl.
        (* histories of another length have weight too, but are not in the sum *)
        set (P' := fun h t => if Nat.eqb (length h) (length ls) then P h t else 0).
        set (Q' := fun h t => if Nat.eqb (length h) (length ls) then Q h t else 0).
        assert (E : forall m h, In h (histories m) -> length h = m).
        { clear; induction m; simpl; intros h; [intuition; now subst|].
          rewrite in_map_iff; intros ([h' t] & <- & Hin); apply in_prod_iff in Hin as [Hin _].
          simpl; f_equal; auto. }
        assert (W : rsum (list_prod (histories (length ls)) outs)
            (fun x => Rmax 0 (a * (joint P (fst x) * P (fst x) (snd x))
                              - b * (joint Q (fst x) * Q (fst x) (snd x))))
          = stick (list_prod (histories (length ls)) outs) a b
              (both (joint P) P') (both (joint Q) Q')).
        { unfold stick, both; rewrite !rsum_prod; simpl; specialize (E (length ls)).
          revert E; generalize (histories (length ls)); induction l0 as [|h hs IHh]; auto.
          intros E; simpl; rewrite IHh by (intros; apply E; now right); f_equal.
          unfold P', Q'; now rewrite (E h (or_introl eq_refl)), Nat.eqb_refl. }
        rewrite W; apply two_rounds_are_covered; auto using joint_nonneg.
        intros h; unfold P', Q'; destruct (Nat.eqb_spec (length h) (length ls)); [auto|].
        intros a' b' Ha' Hb'; unfold stick.
        rewrite (rsum_ext outs _ (fun _ => 0)), rsum_zero.
        + apply Rle_trans with (rsum l (fun _ => 0)); [rewrite rsum_zero; lra|].
          apply rsum_below; auto; intros s Hm _.
          apply Rmult_le_pos; auto; apply Rmax_l.
        + intros; rewrite !Rmult_0_r, Rminus_0_r; apply Rmax_left; lra.
    Qed.
  End Run.

  Theorem the_pairs_give_a_delta {T} (l : pair) (outs : list T) P Q e d : 0 <= e ->
    covers l outs P Q -> worth l 1 e <= d -> close outs e d P Q.
  Proof.
    intros He H Hd; apply the_hockey_stick_is_the_least_delta.
    eapply Rle_trans; [apply H; lra | exact Hd].
  Qed.

  (* What every cover of two laws has: this is how masses that were lowered are noticed. *)
  Theorem a_cover_of_laws_has_all_their_mass {T} (l : pair) (outs : list T) P Q a b :
    law outs P -> law outs Q -> covers l outs P Q -> 0 <= a -> 0 <= b -> a - b <= worth l a b.
  Proof.
    intros [_ HP] [_ HQ] H Ha Hb; eapply Rle_trans; [|now apply H].
    replace (a - b) with (rsum outs (fun t => a * P t + - b * Q t)).
    - unfold stick; apply rsum_le; intros t; eapply Rle_trans; [|apply Rmax_r]; lra.
    - rewrite rsum_add, !rsum_mul, HP, HQ; lra.
  Qed.
End Pairs.
