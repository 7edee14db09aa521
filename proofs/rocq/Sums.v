(* Sums over lists of anything, for integers and for reals: what the other files need of them.

   Models: nothing of its own. *)
From Coq Require Import ZArith Reals List Permutation Lia Lra.
Import ListNotations.

Section Integers.
  Open Scope Z_scope.

  Fixpoint zsum {A} (l : list A) (f : A -> Z) : Z :=
    match l with [] => 0 | x :: l' => f x + zsum l' f end.

  Lemma zsum_ext {A} (l : list A) f g : (forall x, In x l -> f x = g x) -> zsum l f = zsum l g.
  Proof. induction l; simpl; intros H; auto; rewrite H, IHl; auto. Qed.
  Lemma zsum_add {A} (l : list A) f g : zsum l (fun x => f x + g x) = zsum l f + zsum l g.
  Proof. induction l; simpl; lia. Qed.
  Lemma zsum_mul {A} (l : list A) c f : zsum l (fun x => c * f x) = c * zsum l f.
  Proof. induction l; simpl; lia. Qed.
  Lemma zsum_zero {A} (l : list A) : zsum l (fun _ => 0) = 0.
  Proof. induction l; simpl; lia. Qed.
  Lemma zsum_app {A} (l l' : list A) f : zsum (l ++ l') f = zsum l f + zsum l' f.
  Proof. induction l; simpl; lia. Qed.
  Lemma zsum_perm {A} (l l' : list A) f : Permutation l l' -> zsum l f = zsum l' f.
  Proof. induction 1; simpl; lia. Qed.
  Lemma zsum_nonneg {A} (l : list A) f : (forall x, In x l -> 0 <= f x) -> 0 <= zsum l f.
  Proof. induction l; simpl; intros H; [lia|]; pose proof (H a); firstorder lia. Qed.
  Lemma zsum_le {A} (l : list A) f g :
    (forall x, In x l -> f x <= g x) -> zsum l f <= zsum l g.
  Proof.
    induction l as [|a l IH]; simpl; intros H; [lia|].
    pose proof (H a (or_introl eq_refl)); pose proof (IH (fun x h => H x (or_intror h))); lia.
  Qed.
  Lemma zsum_swap {A B} (l : list A) (l' : list B) f :
    zsum l (fun x => zsum l' (f x)) = zsum l' (fun y => zsum l (fun x => f x y)).
  Proof.
    induction l; simpl; [now rewrite zsum_zero|].
    now rewrite (zsum_add l' (f a) (fun y => zsum l (fun x => f x y))), IHl.
  Qed.
  Lemma zsum_product {A B} (l : list A) (l' : list B) f g :
    zsum l f * zsum l' g = zsum l (fun x => zsum l' (fun y => f x * g y)).
  Proof. induction l; simpl; [lia|]; rewrite <- IHl, zsum_mul; ring. Qed.
End Integers.

Section Reals.
  Open Scope R_scope.

  Fixpoint rsum {A} (l : list A) (f : A -> R) : R :=
    match l with [] => 0 | x :: l' => f x + rsum l' f end.

  Lemma rsum_ext {A} (l : list A) f g : (forall x, f x = g x) -> rsum l f = rsum l g.
  Proof. intros H; induction l; simpl; auto; rewrite H, IHl; auto. Qed.
  Lemma rsum_add {A} (l : list A) f g : rsum l (fun x => f x + g x) = rsum l f + rsum l g.
  Proof. induction l; simpl; lra. Qed.
  Lemma rsum_mul {A} (l : list A) c f : rsum l (fun x => c * f x) = c * rsum l f.
  Proof. induction l; simpl; lra. Qed.
  Lemma rsum_zero {A} (l : list A) : rsum l (fun _ => 0) = 0.
  Proof. induction l; simpl; lra. Qed.
  Lemma rsum_le {A} (l : list A) f g : (forall x, f x <= g x) -> rsum l f <= rsum l g.
  Proof. intros H; induction l; simpl; [lra|]; specialize (H a); lra. Qed.
  Lemma rsum_nonneg {A} (l : list A) f : (forall x, 0 <= f x) -> 0 <= rsum l f.
  Proof. intros H; rewrite <- (rsum_zero l); now apply rsum_le. Qed.
  Lemma rsum_swap {A B} (l : list A) (l' : list B) f :
    rsum l (fun x => rsum l' (f x)) = rsum l' (fun y => rsum l (fun x => f x y)).
  Proof.
    induction l; simpl; [now rewrite rsum_zero|].
    now rewrite (rsum_add l' (f a) (fun y => rsum l (fun x => f x y))), IHl.
  Qed.
  Lemma rsum_prod {A B} (l : list A) (l' : list B) f :
    rsum (list_prod l l') f = rsum l (fun x => rsum l' (fun y => f (x, y))).
  Proof.
    induction l; simpl; auto; rewrite <- IHl; clear IHl.
    generalize (list_prod l l'); intros m; induction l'; simpl; lra.
  Qed.
End Reals.
