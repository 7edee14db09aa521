(* A layer's gradient as a sum of outer products: its norm is known from two factors, without it.

   Models:
     privagg.training.ghost.pieces:Factors (squares, total)
     privagg.training.ghost.integers:_squares (sums of squares; EXACT32, EXACT64)
     privagg.training.ghost.pieces:_inner

   g t i is the integer G at position t and output i, a t j the integer A at position t and input j.
   A float of precision p is Flocq's FLX format, rounded to nearest, ties to even: exponents without
   bounds, as integers meet neither end. Sums are trees, so that no order of addition is assumed. *)
From Coq Require Import ZArith Reals List Permutation Lia Lra.
From Flocq Require Import Core.
From Privagg Require Import Sums.
Open Scope Z_scope.

Section Factors.
  Context {Position Out In : Type}.
  Variables (positions : list Position) (outs : list Out) (ins : list In).
  Variables (g : Position -> Out -> Z) (a : Position -> In -> Z).

  Definition gradient (i : Out) (j : In) : Z := zsum positions (fun t => g t i * a t j).
  Definition square_norm : Z :=
    zsum outs (fun i => zsum ins (fun j => gradient i j * gradient i j)).
  Definition gram_in (t t' : Position) : Z := zsum ins (fun j => a t j * a t' j).
  Definition gram_out (t t' : Position) : Z := zsum outs (fun i => g t i * g t' i).
  Definition inner_of_grams : Z :=
    zsum positions (fun t => zsum positions (fun t' => gram_in t t' * gram_out t t')).

  Theorem the_norm_is_the_inner_product_of_two_gram_matrices : square_norm = inner_of_grams.
  Proof.
    unfold square_norm, inner_of_grams, gradient, gram_in, gram_out.
    transitivity (zsum outs (fun i => zsum ins (fun j => zsum positions (fun t =>
      zsum positions (fun t' => (g t i * a t j) * (g t' i * a t' j)))))).
    { repeat (apply zsum_ext; intros ? _); apply zsum_product. }
    transitivity (zsum positions (fun t => zsum positions (fun t' => zsum outs (fun i =>
      zsum ins (fun j => (g t i * g t' i) * (a t j * a t' j)))))).
    - rewrite (zsum_ext outs _ (fun i => zsum positions (fun t => zsum positions (fun t' =>
        zsum ins (fun j => (g t i * g t' i) * (a t j * a t' j)))))).
      + rewrite zsum_swap; apply zsum_ext; intros t _; now rewrite zsum_swap.
      + intros i _; rewrite zsum_swap; apply zsum_ext; intros t _; rewrite zsum_swap.
        repeat (apply zsum_ext; intros ? _); ring.
    - repeat (apply zsum_ext; intros ? _); now rewrite <- zsum_product, Z.mul_comm.
  Qed.
End Factors.

(* One position: the norms' product. *)
Theorem at_one_position_norms_multiply {Position Out In : Type} (t : Position)
    (outs : list Out) (ins : list In) g a :
  square_norm (t :: nil) outs ins g a
  = zsum ins (fun j => a t j * a t j) * zsum outs (fun i => g t i * g t i).
Proof.
  rewrite the_norm_is_the_inner_product_of_two_gram_matrices.
  unfold inner_of_grams, gram_in, gram_out; simpl; lia.
Qed.

(* ---- Partial sums are within the product of the norms ---------------------------------------- *)

Lemma zsum_square_nonneg {A} (l : list A) f : 0 <= zsum l (fun x => f x * f x).
Proof. apply zsum_nonneg; intros; nia. Qed.

Theorem cauchy_schwarz {A} (l : list A) (f h : A -> Z) :
  zsum l (fun x => f x * h x) * zsum l (fun x => f x * h x)
  <= zsum l (fun x => f x * f x) * zsum l (fun x => h x * h x).
Proof.
  (* Twice the difference is the sum of (f x h y - f y h x)^2 over all pairs. *)
  enough (0 <= zsum l (fun x => zsum l (fun y =>
    (f x * h y - f y * h x) * (f x * h y - f y * h x)))) as E.
  - rewrite (zsum_ext l _ (fun x => zsum l (fun y => (f x * f x) * (h y * h y))
      + (zsum l (fun y => (h x * h x) * (f y * f y))
         + -2 * zsum l (fun y => (f x * h x) * (f y * h y))))) in E.
    + rewrite !zsum_add, zsum_mul, <- !zsum_product in E; nia.
    + intros x _; rewrite <- zsum_mul, <- !zsum_add; apply zsum_ext; intros; ring.
  - apply zsum_nonneg; intros x _; apply (zsum_square_nonneg l (fun y => f x * h y - f y * h x)).
Qed.

Section Bounds.
  Context {Position Out In : Type}.
  Variables (positions : list Position) (outs : list Out) (ins : list In).
  Variables (g : Position -> Out -> Z) (a : Position -> In -> Z).
  Let pairs := list_prod positions positions.
  Let norm_in := zsum positions (fun t => gram_in ins a t t).
  Let norm_out := zsum positions (fun t => gram_out outs g t t).

  Lemma zsum_pairs f :
    zsum pairs f = zsum positions (fun t => zsum positions (fun t' => f (t, t'))).
  Proof.
    unfold pairs; generalize positions at 1 3 as l; induction l as [|t l IH]; simpl; auto.
    rewrite zsum_app, IH; f_equal; clear; induction positions; simpl; auto; lia.
  Qed.

  Lemma grams_squared {K} (ks : list K) (v : Position -> K -> Z) :
    let gram t t' := zsum ks (fun k => v t k * v t' k) in
    let norm := zsum positions (fun t => gram t t) in
    zsum pairs (fun p => Z.abs (gram (fst p) (snd p)) * Z.abs (gram (fst p) (snd p)))
      <= norm * norm.
  Proof.
    intros gram norm; unfold norm; rewrite zsum_product, zsum_pairs.
    apply zsum_le; intros t _; apply zsum_le; intros t' _; cbn [fst snd].
    rewrite Z.abs_square; apply cauchy_schwarz.
  Qed.

  Theorem terms_add_up_to_at_most_the_norms_product :
    zsum pairs (fun p => Z.abs (gram_in ins a (fst p) (snd p) * gram_out outs g (fst p) (snd p)))
      <= norm_in * norm_out.
  Proof.
    set (x := fun p => Z.abs (gram_in ins a (fst p) (snd p))).
    set (y := fun p => Z.abs (gram_out outs g (fst p) (snd p))).
    pose proof (cauchy_schwarz pairs x y) as C.
    pose proof (grams_squared ins a : zsum pairs (fun p => x p * x p) <= norm_in * norm_in) as A.
    pose proof (grams_squared outs g : zsum pairs (fun p => y p * y p) <= norm_out * norm_out) as G.
    assert (0 <= norm_in) by (apply zsum_nonneg; intros; apply zsum_square_nonneg).
    assert (0 <= norm_out) by (apply zsum_nonneg; intros; apply zsum_square_nonneg).
    rewrite (zsum_ext pairs _ (fun p => x p * y p)) by (intros; apply Z.abs_mul).
    set (s := zsum pairs (fun p => x p * y p)) in *.
    assert (s * s <= (norm_in * norm_out) * (norm_in * norm_out)).
    { eapply Z.le_trans; [exact C|].
      replace ((norm_in * norm_out) * (norm_in * norm_out))
        with ((norm_in * norm_in) * (norm_out * norm_out)) by ring.
      apply Z.mul_le_mono_nonneg; auto; apply zsum_square_nonneg. }
    nia.
  Qed.
End Bounds.

(* ---- Integers in floating point -------------------------------------------------------------- *)

Inductive tree := leaf (x : Z) | node (l r : tree).
Fixpoint leaves (t : tree) : list Z :=
  match t with leaf x => x :: nil | node l r => leaves l ++ leaves r end.
Fixpoint value (t : tree) : Z := match t with leaf x => x | node l r => value l + value r end.
Fixpoint magnitude (t : tree) : Z :=
  match t with leaf x => Z.abs x | node l r => magnitude l + magnitude r end.
Fixpoint non_negative (t : tree) : Prop :=
  match t with leaf x => 0 <= x | node l r => non_negative l /\ non_negative r end.

Section Floats.
  Variable p : Z.
  Hypothesis p_range : 1 < p.
  Instance p_positive : Prec_gt_0 p.
  Proof. red; lia. Qed.
  Let limit := 2 ^ p.

  Definition rounded (x : R) : R := round radix2 (FLX_exp p) ZnearestE x.
  Fixpoint computed (t : tree) : R :=
    match t with leaf x => rounded (IZR x) | node l r => rounded (computed l + computed r) end.

  Lemma limit_is_a_power : IZR limit = bpow radix2 p.
  Proof. unfold limit; rewrite <- (IZR_Zpower radix2) by lia; auto. Qed.

  Lemma integers_are_floats x : Z.abs x <= limit -> generic_format radix2 (FLX_exp p) (IZR x).
  Proof.
    intros H; destruct (Z.eq_dec (Z.abs x) limit) as [E|E].
    - assert (L : generic_format radix2 (FLX_exp p) (IZR limit)).
      { rewrite limit_is_a_power; apply generic_format_bpow; unfold FLX_exp; lia. }
      destruct (Z.abs_spec x) as [[_ A]|[_ A]].
      + now replace x with limit by lia.
      + replace x with (- limit) by lia; rewrite opp_IZR; now apply generic_format_opp.
    - apply generic_format_FLX, FLX_spec with (f := Float radix2 x 0).
      + unfold F2R; simpl; ring.
      + simpl; change (Z.pow_pos 2) with (fun q => 2 ^ Z.pos q); fold limit; lia.
  Qed.

  Lemma rounded_integer x : Z.abs x <= limit -> rounded (IZR x) = IZR x.
  Proof. intros H; apply round_generic; [apply valid_rnd_N | now apply integers_are_floats]. Qed.

  Lemma rounded_beyond x : (IZR limit <= x)%R -> (IZR limit <= rounded x)%R.
  Proof.
    intros H; rewrite <- (rounded_integer limit) by (unfold limit; lia).
    apply round_le; auto; [apply FLX_exp_valid; apply p_positive | apply valid_rnd_N].
  Qed.

  Lemma rounded_non_negative x : (0 <= x)%R -> (0 <= rounded x)%R.
  Proof.
    intros H; rewrite <- (round_0 radix2 (FLX_exp p) ZnearestE).
    apply round_le; auto; [apply FLX_exp_valid; apply p_positive | apply valid_rnd_N].
  Qed.

  Lemma magnitude_bounds t : Z.abs (value t) <= magnitude t.
  Proof. induction t; simpl; lia. Qed.

  Theorem sums_of_integers_are_exact_in_every_order t :
    magnitude t <= limit -> computed t = IZR (value t).
  Proof.
    assert (N : forall u, 0 <= magnitude u) by (intros u; induction u; simpl; lia).
    induction t as [x|l IHl r IHr]; simpl; intros H; [now apply rounded_integer|].
    pose proof (N l); pose proof (N r); pose proof (magnitude_bounds l).
    pose proof (magnitude_bounds r); rewrite IHl, IHr, <- plus_IZR by lia.
    apply rounded_integer; lia.
  Qed.

  Lemma monotone_sums t : non_negative t ->
    0 <= value t /\ (0 <= computed t)%R /\ (value t <= limit -> computed t = IZR (value t))
    /\ (limit <= value t -> (IZR limit <= computed t)%R).
  Proof.
    induction t as [x|l IHl r IHr]; simpl.
    - intros Hx; repeat split; auto.
      + apply rounded_non_negative, IZR_le; lia.
      + intros; apply rounded_integer; lia.
      + intros; now apply rounded_beyond, IZR_le.
    - intros [Hl Hr]; destruct (IHl Hl) as (L0 & CL & EL & BL).
      destruct (IHr Hr) as (R0 & CR & ER & BR); repeat split; try lia.
      + apply rounded_non_negative; lra.
      + intros H; rewrite EL, ER, <- plus_IZR by lia; apply rounded_integer; lia.
      + intros H; apply rounded_beyond.
        destruct (Z.le_gt_cases limit (value l)) as [Hbig|Hl'];
          [specialize (BL Hbig); lra|].
        destruct (Z.le_gt_cases limit (value r)) as [Hbig|Hr'];
          [specialize (BR Hbig); lra|].
        rewrite EL, ER, <- plus_IZR by lia; now apply IZR_le.
  Qed.

  Theorem a_sum_of_squares_below_the_limit_is_exact t : non_negative t ->
    (computed t < IZR limit)%R -> computed t = IZR (value t).
  Proof.
    intros H C; destruct (monotone_sums t H) as (_ & _ & E & B).
    destruct (Z.le_gt_cases limit (value t)) as [Hbig|Hl]; [specialize (B Hbig); lra|].
    apply E; lia.
  Qed.

  Theorem a_sum_of_squares_beyond_the_limit_is_seen_to_be t : non_negative t ->
    limit <= value t -> (IZR limit <= computed t)%R.
  Proof. intros H; now destruct (monotone_sums t H) as (_ & _ & _ & B). Qed.
End Floats.

Lemma magnitude_of_leaves t : magnitude t = zsum (leaves t) Z.abs.
Proof. induction t; simpl; [lia|]; rewrite zsum_app; lia. Qed.

Lemma value_of_leaves t : value t = zsum (leaves t) (fun x => x).
Proof. induction t; simpl; [lia|]; rewrite zsum_app; lia. Qed.

(* In whatever order `_inner` adds its terms, where |A|^2 |G|^2 is at most 2^53. *)
Theorem the_computed_norm_is_exact {Position Out In} (positions : list Position) (outs : list Out)
    (ins : list In) g a t :
  Permutation (leaves t) (map (fun p =>
    gram_in ins a (fst p) (snd p) * gram_out outs g (fst p) (snd p))
    (list_prod positions positions)) ->
  zsum positions (fun t => gram_in ins a t t) * zsum positions (fun t => gram_out outs g t t)
    <= 2 ^ 53 ->
  computed 53 t = IZR (square_norm positions outs ins g a).
Proof.
  intros Hp Hn.
  assert (M : forall A B (l : list A) (f : A -> B) h, zsum (map f l) h = zsum l (fun x => h (f x)))
    by (intros A B l f h; induction l; simpl; congruence).
  rewrite sums_of_integers_are_exact_in_every_order; [|lia|].
  - rewrite value_of_leaves, (zsum_perm _ _ _ Hp), M.
    rewrite the_norm_is_the_inner_product_of_two_gram_matrices; unfold inner_of_grams.
    now rewrite zsum_pairs.
  - rewrite magnitude_of_leaves, (zsum_perm _ _ _ Hp), M.
    eapply Z.le_trans; [apply terms_add_up_to_at_most_the_norms_product | exact Hn].
Qed.
