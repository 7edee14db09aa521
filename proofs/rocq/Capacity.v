(* No sum leaves the integers that it is computed in, and packed values come apart again.

   Models:
     privagg.privacy.plan.sharing:SharedNoisePlan (upload_bound, sum_bound, _noiseless_bound)
     privagg.privacy.plan.record:RecordPlan.contribution_bound
     privagg.privacy.plan.client:ClientPlan.contribution_bound
     privagg.privacy.plan.local:LocalPlan (upload_bound, sum_bound)
     privagg.privacy.noise:Composition.bound
     privagg.privacy.plan.sums:SumsPlan (contribution_bound, upload_bound, sum_bound)
     privagg.encoding.packing:Packing (pack, unpack, _split)
     privagg.secure.paillier_packing:SlotPacking (pack, unpack)
     privagg.kernels.packed_sums:PackedLayout (pack, unpack; the integer, not its words)
     privagg.kernels.wide:FieldLayout (bias, pack, unpack; the integer, not its words)
     privagg.encoding.grid:Grid (sum_records: int64 sums)

   int64 is arithmetic modulo 2^64, centred. *)
From Coq Require Import ZArith List Lia Permutation.
From Privagg Require Import Vectors.
Import ListNotations.
Open Scope Z_scope.

(* ---- int64 sums ------------------------------------------------------------------------------ *)

Definition sum_i64 (xs : list Z) : Z := fold_right (fun x s => i64 (x + s)) 0 xs.

Lemma sum_bounded b xs : 0 <= b -> Forall (fun x => - b <= x <= b) xs ->
  - (Z.of_nat (length xs) * b) <= sum xs <= Z.of_nat (length xs) * b.
Proof. intros Hb; induction 1; simpl length; simpl sum; [lia|]; rewrite Nat2Z.inj_succ; nia. Qed.

Theorem int64_sums_are_exact b xs : 0 <= b -> Z.of_nat (length xs) * b < 2 ^ 63 ->
  Forall (fun x => - b <= x <= b) xs -> sum_i64 xs = sum xs.
Proof.
  intros Hb Hc Hx; induction xs as [|x xs IH]; auto.
  pose proof (sum_bounded b (x :: xs) Hb Hx) as E; inversion Hx; subst.
  simpl length in *; rewrite Nat2Z.inj_succ in *.
  simpl; rewrite IH; auto; [|nia]; apply i64_exact; simpl in E; lia.
Qed.

Theorem a_column_of_records_is_exact S xs : 0 <= S <= 2 ^ 31 -> Z.of_nat (length xs) <= 2 ^ 31 ->
  Forall (fun x => - S <= x <= S) xs -> sum_i64 xs = sum xs /\ Z.abs (sum xs) <= 2 ^ 62.
Proof.
  intros HS Hn Hx; pose proof (sum_bounded S xs ltac:(lia) Hx).
  assert (Z.of_nat (length xs) * S <= 2 ^ 62) by (change (2 ^ 62) with (2 ^ 31 * 2 ^ 31); nia).
  split; [apply (int64_sums_are_exact S); auto; lia | lia].
Qed.

Lemma sum_repeat n x : sum (repeat x n) = Z.of_nat n * x.
Proof. induction n; [auto|]; rewrite Nat2Z.inj_succ; simpl repeat; simpl sum; lia. Qed.

(* The bound above is met: 2^62 itself is reached, so "below 2^62" would be wrong. *)
Theorem records_at_their_limit_reach_2_to_the_62 :
  exists xs, Z.of_nat (length xs) <= 2 ^ 31 /\ Forall (fun x => - 2 ^ 31 <= x <= 2 ^ 31) xs
             /\ sum xs = 2 ^ 62.
Proof.
  exists (repeat (2 ^ 31) (Z.to_nat (2 ^ 31))); rewrite repeat_length, sum_repeat, Z2Nat.id by easy.
  repeat split; try easy; apply Forall_forall; intros x Hx; apply repeat_spec in Hx; subst; easy.
Qed.

(* ---- Bounds of uploads and of their sums ----------------------------------------------------- *)

(* A site's weighted contribution stays within +-top before noise, its share of the noise within
   +-noise; at most n sites are in a sum. *)
Fixpoint largest_of (tops : list Z) : Z :=
  match tops with [] => 0 | x :: rest => Z.max x (largest_of rest) end.
Fixpoint most_of (n : nat) (tops : list Z) : Z :=
  match n, tops with
  | O, _ | _, [] => 0
  | S n', x :: rest => Z.max (x + most_of n' rest) (most_of n rest)
  end.
Definition upload_bound (tops : list Z) (noise : Z) : Z := largest_of tops + noise.
Definition sum_bound (n : nat) (tops : list Z) (noise : Z) : Z :=
  most_of n tops + noise * Z.of_nat n.

(* 1 + R + R^2 + ..., n terms. *)
Fixpoint digit_weight (radix : Z) (n : nat) : Z :=
  match n with O => 0 | S n' => 1 + radix * digit_weight radix n' end.
Definition ceil_div (a b : Z) : Z := - (- a / b).
Definition ceil_sqrt (x : Z) : Z := let r := Z.sqrt x in if r * r =? x then r else r + 1.

(* What `top` is, before the weight. Of sampled records, q = a/b: no more than are declared, nor
   than mu + 8 sqrt(mu) + 8, mu = q records, rounded up; each adds at most S. *)
Definition clamp_of_sampled (a b S records : Z) : Z :=
  Z.min records (8 + ceil_div (a * records + ceil_sqrt (64 * (a * records) * b)) b) * S.
(* Of one update: its clamp of b bits, or its norm. *)
Definition clamp_of_update (clamp S : Z) : Z := Z.min clamp S.
(* Of all records or shards, each within L. *)
Definition clamp_of_all (L addends : Z) : Z := addends * L.
(* Of a share: tables of stddev n/d end at 13 of them; digits are composed in a radix. *)
Definition noise_bound (n d radix : Z) (levels : nat) : Z :=
  ceil_div (13 * n) d * digit_weight radix levels.

(* Which sites are in a sum, each with what it sends. *)
Inductive sent (noise : Z) : list Z -> list Z -> Prop :=
  | nobody : sent noise [] []
  | absent top tops xs : sent noise tops xs -> sent noise (top :: tops) xs
  | present top tops x r xs : - top <= x <= top -> - noise <= r <= noise ->
      sent noise tops xs -> sent noise (top :: tops) (x + r :: xs).

Theorem no_upload_leaves_its_bound tops noise top x r :
  In top tops -> - top <= x <= top -> - noise <= r <= noise ->
  - upload_bound tops noise <= x + r <= upload_bound tops noise.
Proof.
  intros H; enough (top <= largest_of tops) by (unfold upload_bound; lia).
  induction tops; simpl in *; [easy|]; destruct H as [->|H]; [|apply IHtops in H]; lia.
Qed.

Lemma most_of_nonneg n tops : Forall (fun t => 0 <= t) tops -> 0 <= most_of n tops.
Proof.
  intros H; revert n; induction H; intros [|n]; simpl; try lia; specialize (IHForall (S n)); lia.
Qed.

Lemma most_of_none tops : most_of 0 tops = 0.
Proof. now destruct tops. Qed.

Theorem no_sum_leaves_its_bound n tops noise xs : 0 <= noise -> Forall (fun t => 0 <= t) tops ->
  sent noise tops xs -> (length xs <= n)%nat ->
  - sum_bound n tops noise <= sum xs <= sum_bound n tops noise.
Proof.
  intros Hr Ht Hs; unfold sum_bound; revert n.
  induction Hs as [|top tops xs Hs IH|top tops x r xs Hx Hn Hs IH]; intros n Hl;
    inversion Ht as [|? ? Ht0 Hts]; subst.
  - destruct n; simpl; lia.
  - specialize (IH Hts n Hl); destruct n; [rewrite most_of_none in *; lia | cbn [most_of]; lia].
  - destruct n as [|n]; [simpl in Hl; lia|].
    specialize (IH Hts n ltac:(simpl in Hl; lia)); rewrite Nat2Z.inj_succ.
    cbn [most_of sum]; lia.
Qed.

(* A site's clamp in plans of sums: records that add at most L in each coordinate. *)
Theorem declared_records_never_reach_the_clamp L n xs : 0 <= L -> Z.of_nat (length xs) <= n ->
  Forall (fun x => - L <= x <= L) xs -> - clamp_of_all L n <= sum xs <= clamp_of_all L n.
Proof. intros HL Hn Hx; pose proof (sum_bounded L xs HL Hx); unfold clamp_of_all; nia. Qed.

(* ---- Residues: the centred lift gives the integer back --------------------------------------- *)

Definition centred (q x : Z) : Z := (x + q / 2) mod q - q / 2.

Lemma centred_exact q x : 0 < q -> 2 * Z.abs x < q -> centred q x = x.
Proof.
  intros Hq Hx; unfold centred; rewrite Z.mod_small; [lia|].
  pose proof (Z.div_mod q 2 ltac:(lia)); pose proof (Z.mod_pos_bound q 2 ltac:(lia)); lia.
Qed.

Lemma centred_of_residue q x : 0 < q -> centred q (x mod q) = centred q x.
Proof. intros Hq; unfold centred; now rewrite Z.add_mod_idemp_l by lia. Qed.

Theorem summed_residues_open_to_the_sum q xs : 0 < q -> 2 * Z.abs (sum xs) < q ->
  centred q (sum (map (fun x => x mod q) xs)) = sum xs.
Proof.
  intros Hq Hs; transitivity (centred q (sum xs)); [|now apply centred_exact].
  rewrite <- centred_of_residue, <- (centred_of_residue q (sum xs)) by auto; f_equal.
  clear Hs; induction xs; simpl; auto.
  now rewrite Z.add_mod, IHxs, <- Z.add_mod, Z.add_mod_idemp_l by lia.
Qed.

(* ---- Several values in one integer ----------------------------------------------------------- *)

(* Horner's rule: the first value is the lowest digit. *)
Fixpoint pack (radix : Z) (vs : list Z) : Z :=
  match vs with [] => 0 | v :: vs' => v + radix * pack radix vs' end.
(* n digits from the bottom, each in [-low, radix - low). *)
Fixpoint unpack (radix low : Z) (n : nat) (packed : Z) : list Z :=
  match n with
  | O => []
  | S n' => let digit := (packed + low) mod radix - low in
            digit :: unpack radix low n' ((packed - digit) / radix)
  end.

Lemma pack_linear radix u v : length u = length v ->
  pack radix (vadd u v) = pack radix u + pack radix v.
Proof.
  revert v; induction u as [|x u IH]; intros [|y v] L; try discriminate; simpl; auto.
  rewrite IH by (simpl in L; congruence); ring.
Qed.

Lemma pack_sum radix d uploads : Forall (fun u => length u = d) uploads ->
  sum (map (pack radix) uploads) = pack radix (column_sum d uploads).
Proof.
  induction 1 as [|u us Hu Hus IH]; simpl.
  - unfold zeros; induction d; simpl; auto; rewrite <- IHd; ring.
  - rewrite IH, pack_linear; auto; rewrite Hu; symmetry; now apply column_sum_length.
Qed.

Lemma digit_of radix low v rest : 0 < radix -> - low <= v < radix - low ->
  (v + radix * rest + low) mod radix - low = v.
Proof.
  intros Hr Hv; replace (v + radix * rest + low) with (v + low + rest * radix) by ring.
  rewrite Z.mod_add, Z.mod_small; lia.
Qed.

Lemma unpack_pack radix low vs : 0 < radix -> Forall (fun v => - low <= v < radix - low) vs ->
  unpack radix low (length vs) (pack radix vs) = vs.
Proof.
  intros Hr; induction 1 as [|v vs Hv _ IH]; auto.
  cbn [length unpack pack]; rewrite digit_of by auto; f_equal.
  replace (v + radix * pack radix vs - v) with (pack radix vs * radix) by ring.
  now rewrite Z.div_mul by lia.
Qed.

(* Whatever the uploads are: it is their sums that must keep to the digits' range. *)
Theorem packed_sums_come_apart radix low d uploads : 0 < radix ->
  Forall (fun u => length u = d) uploads ->
  Forall (fun s => - low <= s < radix - low) (column_sum d uploads) ->
  unpack radix low d (sum (map (pack radix) uploads)) = column_sum d uploads.
Proof.
  intros Hr Hl Hs; rewrite (pack_sum _ d) by auto.
  rewrite <- (column_sum_length d uploads) at 1 by auto; now apply unpack_pack.
Qed.

(* `Packing`: sums within +-bound in radix 2 bound + 1. *)
Theorem values_that_share_a_word_come_apart bound d uploads : 0 <= bound ->
  Forall (fun u => length u = d) uploads ->
  Forall (fun s => - bound <= s <= bound) (column_sum d uploads) ->
  unpack (2 * bound + 1) bound d (sum (map (pack (2 * bound + 1)) uploads)) = column_sum d uploads.
Proof.
  intros Hb Hl Hs; apply packed_sums_come_apart; auto; [lia|].
  eapply Forall_impl; [|exact Hs]; cbv beta; lia.
Qed.

(* `SlotPacking`, `PackedLayout`: fields of w bits hold sums in [-2^(w-1), 2^(w-1)). *)
Theorem slots_come_apart w d uploads : 1 <= w -> Forall (fun u => length u = d) uploads ->
  Forall (fun s => - 2 ^ (w - 1) <= s < 2 ^ (w - 1)) (column_sum d uploads) ->
  unpack (2 ^ w) (2 ^ (w - 1)) d (sum (map (pack (2 ^ w)) uploads)) = column_sum d uploads.
Proof.
  intros Hw Hl Hs; assert (E : 2 ^ w = 2 * 2 ^ (w - 1))
    by (replace w with (Z.succ (w - 1)) at 1 by lia; apply Z.pow_succ_r; lia).
  assert (0 < 2 ^ (w - 1)) by (apply Z.pow_pos_nonneg; lia).
  apply packed_sums_come_apart; auto; [lia|].
  eapply Forall_impl; [|exact Hs]; cbv beta; lia.
Qed.

(* `FieldLayout`: fields of w bits above `shift` zero bits; each holds its value plus 2^(w-1), and
   sums are kept modulo 2^(n w + shift). *)
Definition field_bits (w shift : Z) (n : nat) : Z := Z.of_nat n * w + shift.
Definition field_bias (w shift : Z) (n : nat) : Z :=
  2 ^ shift * (2 ^ (w - 1) * digit_weight (2 ^ w) n).
Definition field_pack (w shift : Z) (vs : list Z) : Z :=
  2 ^ shift * pack (2 ^ w) (map (fun v => v + 2 ^ (w - 1)) vs).
Definition field_unpack (w shift : Z) (n : nat) (addends packed : Z) : list Z :=
  let unbiased := (packed - (addends - 1) * field_bias w shift n) mod 2 ^ field_bits w shift n in
  map (fun digit => digit - 2 ^ (w - 1)) (unpack (2 ^ w) 0 n (unbiased / 2 ^ shift)).

Lemma pack_shifted radix half vs :
  pack radix (map (fun v => v + half) vs) = pack radix vs + half * digit_weight radix (length vs).
Proof.
  induction vs as [|v vs IH]; cbn [map pack digit_weight length]; [lia|]; rewrite IH; ring.
Qed.

Lemma pack_range radix vs : 0 < radix -> Forall (fun v => 0 <= v < radix) vs ->
  0 <= pack radix vs < radix ^ Z.of_nat (length vs).
Proof.
  intros Hr; induction 1 as [|v vs Hv _ IH]; [simpl; lia|]; cbn [pack length].
  rewrite Nat2Z.inj_succ, Z.pow_succ_r by lia; nia.
Qed.

Lemma field_sum w shift d uploads : Forall (fun u => length u = d) uploads ->
  sum (map (field_pack w shift) uploads)
  = 2 ^ shift * pack (2 ^ w) (column_sum d uploads)
    + Z.of_nat (length uploads) * field_bias w shift d.
Proof.
  intros H; rewrite <- (pack_sum _ d) by auto; unfold field_bias.
  induction H as [|u us Hu Hus IH]; cbn [map sum length]; [ring|].
  rewrite IH, Nat2Z.inj_succ; unfold field_pack; rewrite pack_shifted, Hu; ring.
Qed.

Theorem fields_of_a_coefficient_come_apart w shift d uploads : 1 <= w -> 0 <= shift ->
  Forall (fun u => length u = d) uploads ->
  Forall (fun s => - 2 ^ (w - 1) <= s < 2 ^ (w - 1)) (column_sum d uploads) ->
  field_unpack w shift d (Z.of_nat (length uploads))
    (sum (map (field_pack w shift) uploads) mod 2 ^ field_bits w shift d) = column_sum d uploads.
Proof.
  intros Hw Hsh Hl Hs; unfold field_unpack; rewrite (field_sum w shift d) by auto.
  assert (E : 2 ^ w = 2 * 2 ^ (w - 1))
    by (replace w with (Z.succ (w - 1)) at 1 by lia; apply Z.pow_succ_r; lia).
  pose proof (Z.pow_pos_nonneg 2 (w - 1)); pose proof (Z.pow_pos_nonneg 2 shift).
  assert (L : length (column_sum d uploads) = d) by now apply column_sum_length.
  set (cs := column_sum d uploads) in *.
  set (half := 2 ^ (w - 1)) in *; set (shifted := map (fun v => v + half) cs).
  assert (R : Forall (fun v => 0 <= v < 2 ^ w) shifted).
  { apply Forall_map; eapply Forall_impl; [|exact Hs]; cbv beta; lia. }
  pose proof (pack_range (2 ^ w) shifted ltac:(lia) R) as B.
  unfold shifted in B at 3; rewrite map_length, L, <- Z.pow_mul_r in B by lia.
  rewrite Zminus_mod_idemp_l.
  match goal with |- context [?x mod _] =>
    replace x with (2 ^ shift * pack (2 ^ w) shifted) by
      (unfold shifted; rewrite pack_shifted, L; unfold field_bias; fold half; ring)
  end.
  unfold field_bits; rewrite (Z.mul_comm _ w), Z.pow_add_r by lia.
  assert (0 <= 2 ^ shift * pack (2 ^ w) shifted < 2 ^ (w * Z.of_nat d) * 2 ^ shift) by nia.
  rewrite Z.mod_small by auto; rewrite Z.mul_comm, Z.div_mul by lia.
  replace d with (length shifted) by (unfold shifted; now rewrite map_length).
  rewrite unpack_pack; [|lia | eapply Forall_impl; [|exact R]; cbv beta; lia].
  unfold shifted; rewrite map_map.
  rewrite (map_ext _ (fun v => v)) by (intros; lia); apply map_id.
Qed.

(* What opening a BFV sum checks: the bits below the fields. *)
Theorem bits_below_the_fields_stay_zero w shift d uploads : 0 <= w -> 0 <= shift ->
  Forall (fun u => length u = d) uploads ->
  (sum (map (field_pack w shift) uploads) mod 2 ^ field_bits w shift d) mod 2 ^ shift = 0.
Proof.
  intros Hw Hsh Hl; pose proof (Z.pow_pos_nonneg 2 shift); unfold field_bits.
  rewrite Z.pow_add_r, (field_sum w shift d) by (auto; lia); unfold field_bias.
  match goal with |- (?x mod _) mod _ = 0 =>
    replace x with ((pack (2 ^ w) (column_sum d uploads) + Z.of_nat (length uploads)
      * (2 ^ (w - 1) * digit_weight (2 ^ w) d)) * 2 ^ shift) by ring
  end.
  assert (2 ^ (Z.of_nat d * w) <> 0) by (apply Z.pow_nonzero; lia).
  rewrite Z.mul_mod_distr_r by lia; apply Z.mod_mul; lia.
Qed.

(* Multiples of radix^n do not change n digits: a packed sum may be kept modulo that. *)
Theorem digits_do_not_see_what_lies_above_them radix low n packed above : 0 < radix ->
  unpack radix low n (packed + above * radix ^ Z.of_nat n) = unpack radix low n packed.
Proof.
  intros Hr; revert packed; induction n as [|n IH]; intros packed; auto; cbn [unpack].
  rewrite Nat2Z.inj_succ, Z.pow_succ_r by lia; set (p := radix ^ Z.of_nat n) in *.
  assert (E : (packed + above * (radix * p) + low) mod radix = (packed + low) mod radix).
  { replace (packed + above * (radix * p) + low)
      with (packed + low + (above * p) * radix) by ring; apply Z.mod_add; lia. }
  rewrite E; f_equal; set (digit := (packed + low) mod radix - low).
  replace (packed + above * (radix * p) - digit)
    with (packed - digit + (above * p) * radix) by ring.
  rewrite Z.div_add by lia; apply IH.
Qed.

(* `Packing.word_sum_bound`. *)
Theorem no_packed_word_leaves_its_bound bound radix vs : 0 <= bound -> 0 <= radix ->
  Forall (fun v => - bound <= v <= bound) vs ->
  Z.abs (pack radix vs) <= bound * digit_weight radix (length vs).
Proof.
  intros Hb Hr; induction 1 as [|v vs Hv _ IH]; cbn [pack digit_weight length]; [lia|].
  assert (Z.abs (radix * pack radix vs) <= radix * (bound * digit_weight radix (length vs))).
  { rewrite Z.abs_mul, (Z.abs_eq radix) by lia; apply Z.mul_le_mono_nonneg_l; lia. }
  replace (bound * (1 + radix * digit_weight radix (length vs)))
    with (bound + radix * (bound * digit_weight radix (length vs))) by ring.
  lia.
Qed.

(* ---- One value over several words (`Packing`, limbs > 1) ------------------------------------- *)

(* Balanced digits of base 2^bits; the last limb is what is left. *)
Fixpoint split (base : Z) (limbs : nat) (x : Z) : list Z :=
  match limbs with
  | O => []
  | S O => [x]
  | S n => let limb := (x + base / 2) mod base - base / 2 in
           limb :: split base n ((x - limb) / base)
  end.
(* Put together in int64. *)
Fixpoint join (base : Z) (limbs : list Z) : Z :=
  match limbs with [] => 0 | l :: ls => i64 (l + base * join base ls) end.

Lemma split_value base limbs x : 0 < base -> (0 < limbs)%nat -> pack base (split base limbs x) = x.
Proof.
  intros Hb; revert x; induction limbs as [|[|n] IH]; intros x Hn; [lia | simpl; ring |].
  change (split base (S (S n)) x) with
    (let limb := (x + base / 2) mod base - base / 2 in
     limb :: split base (S n) ((x - limb) / base)).
  cbv zeta; cbn [pack]; rewrite IH by lia; set (limb := (x + base / 2) mod base - base / 2).
  assert (D : (x - limb) mod base = 0).
  { unfold limb; replace (x - ((x + base / 2) mod base - base / 2))
      with (x + base / 2 - (x + base / 2) mod base) by ring.
    rewrite Zminus_mod_idemp_r, Z.sub_diag; apply Z.mod_0_l; lia. }
  pose proof (Z.div_mod (x - limb) base ltac:(lia)); lia.
Qed.

Lemma split_length base limbs x : length (split base limbs x) = limbs.
Proof.
  revert x; induction limbs as [|[|n] IH]; intros x; auto.
  change (S (length (split base (S n) ((x - ((x + base / 2) mod base - base / 2)) / base)))
    = S (S n)); now rewrite IH.
Qed.

Lemma join_spec base ls : join base ls = i64 (pack base ls).
Proof.
  induction ls as [|l ls IH]; auto; cbn [join pack]; rewrite IH; apply i64_of_congruent.
  replace (l + base * i64 (pack base ls) - (l + base * pack base ls))
    with ((i64 (pack base ls) - pack base ls) * base) by ring.
  now rewrite Z.mul_mod, i64_congruent, Z.mul_0_l by easy.
Qed.

(* As the total fits int64, passing 2^63 on the way is harmless. *)
Theorem limbs_come_together base limbs xs : 0 < base -> (0 < limbs)%nat ->
  - 2 ^ 63 <= sum xs < 2 ^ 63 ->
  join base (column_sum limbs (map (split base limbs) xs)) = sum xs.
Proof.
  intros Hb Hn Hs; rewrite join_spec, <- pack_sum
    by (apply Forall_map, Forall_forall; intros; apply split_length).
  rewrite map_map, (map_ext _ (fun x => x)) by (intros; now apply split_value).
  rewrite map_id; now apply i64_exact.
Qed.
