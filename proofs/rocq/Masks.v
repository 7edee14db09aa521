(* Masks in common of two sites cancel in a sum, whichever sites are in it.

   Models:
     privagg.secure.masked.site:MaskedSite.mask (an upload; Bonawitz et al. 2017, section 4)
     privagg.secure.masked.streams:_add_part (masks on a packed integer)
     privagg.secure.masked.recovery:_Opening (masks: what is taken off a listed sum)

   A payload is one integer modulo N = 2^(width d). Seeds, and that their streams are secret, are
   not modelled: a mask is any integer that two sites have in common. *)
From Coq Require Import ZArith List Permutation Lia.
From Privagg Require Import Vectors Sums Capacity.
Import ListNotations.
Open Scope Z_scope.

(* What is subtracted from itself is nothing: antisymmetry gives x = -x, and modulo an even number
   that has another solution than 0. So the diagonal has to be 0 by itself. *)
Theorem antisymmetry_modulo_an_even_number_is_not_cancellation :
  exists (signed : nat -> nat -> Z) (listed : list nat),
    (forall i j, (signed i j + signed j i) mod 2 ^ 4 = 0)
    /\ zsum listed (fun i => zsum listed (signed i)) mod 2 ^ 4 <> 0.
Proof. exists (fun _ _ => 8), [0%nat]; split; [intros; reflexivity | easy]. Qed.

Section Masks.
  Variable N : Z.
  Hypothesis N_positive : 0 < N.
  Variable value : nat -> Z.            (* what a site wants added *)
  Variable own : nat -> Z.              (* its own mask *)
  Variable common : nat -> nat -> Z.    (* the mask that two sites have in common *)
  Variable neighbour : nat -> nat -> bool.
  Hypothesis common_to_both : forall i j, common i j = common j i.
  Hypothesis neighbours_of_each_other : forall i j, neighbour i j = neighbour j i.

  (* The site that stands first adds it, the other takes it off; with itself a site has none. *)
  Definition signed (i j : nat) : Z :=
    if neighbour i j then
      if (i <? j)%nat then common i j else if (j <? i)%nat then - common i j else 0
    else 0.

  Definition upload (asked : list nat) (i : nat) : Z :=
    (value i + own i + zsum asked (signed i)) mod N.
  (* Taken off: own masks of the listed, and masks between a listed site and one that is gone. *)
  Definition opened (asked listed gone : list nat) : Z :=
    (zsum listed (upload asked) - zsum listed own
     - zsum listed (fun i => zsum gone (signed i))) mod N.

  Theorem the_diagonal_is_zero i : signed i i = 0.
  Proof. unfold signed; rewrite Nat.ltb_irrefl; now destruct (neighbour i i). Qed.

  Theorem what_one_adds_the_other_takes_off i j : signed i j = - signed j i.
  Proof.
    unfold signed; rewrite (common_to_both j i), (neighbours_of_each_other j i).
    destruct (neighbour i j), (Nat.ltb_spec i j), (Nat.ltb_spec j i); lia.
  Qed.

  Theorem masks_within_a_list_cancel listed : zsum listed (fun i => zsum listed (signed i)) = 0.
  Proof.
    induction listed as [|a S IH]; auto; simpl.
    rewrite (zsum_add S (fun i => signed i a) (fun i => zsum S (signed i))), IH.
    rewrite (zsum_ext S (fun i => signed i a) (fun i => -1 * signed a i)), zsum_mul.
    - rewrite the_diagonal_is_zero; lia.
    - intros i _; rewrite what_one_adds_the_other_takes_off; lia.
  Qed.

  Lemma zsum_mod l (f : nat -> Z) : (zsum l (fun i => f i mod N)) mod N = zsum l f mod N.
  Proof.
    induction l; auto; simpl; rewrite Z.add_mod_idemp_l, <- Z.add_mod_idemp_r, IHl by lia.
    now rewrite Z.add_mod_idemp_r by lia.
  Qed.

  Variables asked listed gone : list nat.
  Hypothesis everybody : Permutation asked (listed ++ gone).

  Theorem masks_cancel_for_every_list : opened asked listed gone = zsum listed value mod N.
  Proof.
    unfold opened; rewrite <- Z.sub_add_distr, <- Zminus_mod_idemp_l.
    unfold upload; rewrite zsum_mod, Zminus_mod_idemp_l; f_equal.
    rewrite (zsum_ext listed _ (fun i => (value i + own i)
      + (zsum listed (signed i) + zsum gone (signed i)))).
    - rewrite !zsum_add, masks_within_a_list_cancel; lia.
    - intros i _; now rewrite (zsum_perm _ _ _ everybody), zsum_app.
  Qed.
End Masks.

(* What `add_masks` makes of packed values: each mask with its sign, modulo 2^(w d). *)
Fixpoint signed_sum (masks signs : list Z) : Z :=
  match masks, signs with
  | m :: masks', s :: signs' => s * m + signed_sum masks' signs'
  | _, _ => 0
  end.
Definition payload (w : Z) (values masks signs : list Z) : Z :=
  (pack (2 ^ w) values + signed_sum masks signs) mod (2 ^ w) ^ Z.of_nat (length values).

(* Packed values: fields of w bits, an integer modulo 2^(w d), read from the bottom. *)
Theorem a_masked_sum_opens_to_the_sum_of_the_listed w d (values : nat -> list Z) own common
    neighbour asked listed gone : 1 <= w ->
  (forall i j, common i j = common j i) -> (forall i j, neighbour i j = neighbour j i) ->
  Permutation asked (listed ++ gone) ->
  (forall i, length (values i) = d) ->
  Forall (fun s => - 2 ^ (w - 1) <= s < 2 ^ (w - 1)) (column_sum d (map values listed)) ->
  unpack (2 ^ w) (2 ^ (w - 1)) d
    (opened ((2 ^ w) ^ Z.of_nat d) (fun i => pack (2 ^ w) (values i)) own common neighbour
       asked listed gone)
  = column_sum d (map values listed).
Proof.
  intros Hw Hc Hn Hp Hl Hs; assert (0 < 2 ^ w) by (apply Z.pow_pos_nonneg; lia).
  assert (HN : 0 < (2 ^ w) ^ Z.of_nat d) by (apply Z.pow_pos_nonneg; lia).
  rewrite masks_cancel_for_every_list by auto.
  set (N := (2 ^ w) ^ Z.of_nat d) in *; set (x := zsum _ _).
  replace (x mod N) with (x + (- (x / N)) * N) by (rewrite Z.mod_eq by lia; ring); unfold N, x.
  rewrite digits_do_not_see_what_lies_above_them by auto.
  replace (zsum listed (fun i => pack (2 ^ w) (values i)))
    with (sum (map (pack (2 ^ w)) (map values listed)))
    by (clear; induction listed; simpl; congruence).
  apply slots_come_apart; auto; apply Forall_map, Forall_forall; auto.
Qed.
