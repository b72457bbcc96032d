/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "names.h"

#include <stdlib.h>
#include <string.h>

/* In both, # is a number, the same one; * in front is whatever comes before, and at the end whatever follows. The first that fits counts.
 * Source: the modules of Wan2.1 and Wan2.2 (model.py, t5.py, vae.py, vae2_2.py), and diffusers' and transformers' of the same networks. */
typedef struct
{
  const char *from, *to;
} Name;

static const Name transformer[] = {
  { "time_embedding.0.*", "condition_embedder.time_embedder.linear_1." },
  { "time_embedding.2.*", "condition_embedder.time_embedder.linear_2." },
  { "time_projection.1.*", "condition_embedder.time_proj." },
  { "text_embedding.0.*", "condition_embedder.text_embedder.linear_1." },
  { "text_embedding.2.*", "condition_embedder.text_embedder.linear_2." },
  { "head.modulation", "scale_shift_table" },
  { "head.head.*", "proj_out." },
  { "blocks.#.modulation", "blocks.#.scale_shift_table" },
  { "blocks.#.norm3.*", "blocks.#.norm2." },
  { "blocks.#.ffn.0.*", "blocks.#.ffn.net.0.proj." },
  { "blocks.#.ffn.2.*", "blocks.#.ffn.net.2." },
  { "blocks.#.self_attn.q.*", "blocks.#.attn1.to_q." },
  { "blocks.#.self_attn.k.*", "blocks.#.attn1.to_k." },
  { "blocks.#.self_attn.v.*", "blocks.#.attn1.to_v." },
  { "blocks.#.self_attn.o.*", "blocks.#.attn1.to_out.0." },
  { "blocks.#.self_attn.norm_*", "blocks.#.attn1.norm_" },
  { "blocks.#.cross_attn.q.*", "blocks.#.attn2.to_q." },
  { "blocks.#.cross_attn.k.*", "blocks.#.attn2.to_k." },
  { "blocks.#.cross_attn.v.*", "blocks.#.attn2.to_v." },
  { "blocks.#.cross_attn.o.*", "blocks.#.attn2.to_out.0." },
  { "blocks.#.cross_attn.norm_*", "blocks.#.attn2.norm_" },
  { NULL, NULL }
};

static const Name text_encoder[] = {
  { "token_embedding.*", "shared." },
  { "norm.*", "encoder.final_layer_norm." },
  { "blocks.#.norm1.*", "encoder.block.#.layer.0.layer_norm." },
  { "blocks.#.norm2.*", "encoder.block.#.layer.1.layer_norm." },
  { "blocks.#.attn.*", "encoder.block.#.layer.0.SelfAttention." },
  { "blocks.#.pos_embedding.embedding.*", "encoder.block.#.layer.0.SelfAttention.relative_attention_bias." },
  { "blocks.#.ffn.gate.0.*", "encoder.block.#.layer.1.DenseReluDense.wi_0." },
  { "blocks.#.ffn.fc1.*", "encoder.block.#.layer.1.DenseReluDense.wi_1." },
  { "blocks.#.ffn.fc2.*", "encoder.block.#.layer.1.DenseReluDense.wo." },
  { NULL, NULL }
};

/* Source: gguf's constants.py, architecture t5encoder */
static const Name text_encoder_gguf[] = {
  { "token_embd.*", "shared." },
  { "enc.output_norm.*", "encoder.final_layer_norm." },
  { "enc.blk.#.attn_norm.*", "encoder.block.#.layer.0.layer_norm." },
  { "enc.blk.#.ffn_norm.*", "encoder.block.#.layer.1.layer_norm." },
  { "enc.blk.#.attn_rel_b.*", "encoder.block.#.layer.0.SelfAttention.relative_attention_bias." },
  { "enc.blk.#.attn_*", "encoder.block.#.layer.0.SelfAttention." },
  { "enc.blk.#.ffn_gate.*", "encoder.block.#.layer.1.DenseReluDense.wi_0." },
  { "enc.blk.#.ffn_up.*", "encoder.block.#.layer.1.DenseReluDense.wi_1." },
  { "enc.blk.#.ffn_down.*", "encoder.block.#.layer.1.DenseReluDense.wo." },
  { NULL, NULL }
};

/* The parts of a residual block, wherever it stands; then where things stand. The decoder's flat list is up_block()'s. */
static const Name residual[] = {
  { "*.residual.0.gamma", ".norm1.gamma" }, { "*.residual.2.weight", ".conv1.weight" }, { "*.residual.2.bias", ".conv1.bias" },
  { "*.residual.3.gamma", ".norm2.gamma" }, { "*.residual.6.weight", ".conv2.weight" }, { "*.residual.6.bias", ".conv2.bias" },
  { "*.shortcut.weight", ".conv_shortcut.weight" }, { "*.shortcut.bias", ".conv_shortcut.bias" },
  { NULL, NULL }
};
static const Name vae[] = {
  { "conv1.*", "quant_conv." },
  { "conv2.*", "post_quant_conv." },
  { "encoder.conv1.*", "encoder.conv_in." },
  { "decoder.conv1.*", "decoder.conv_in." },
  { "encoder.head.0.*", "encoder.norm_out." },
  { "decoder.head.0.*", "decoder.norm_out." },
  { "encoder.head.2.*", "encoder.conv_out." },
  { "decoder.head.2.*", "decoder.conv_out." },
  { "encoder.middle.0.*", "encoder.mid_block.resnets.0." },
  { "decoder.middle.0.*", "decoder.mid_block.resnets.0." },
  { "encoder.middle.1.*", "encoder.mid_block.attentions.0." },
  { "decoder.middle.1.*", "decoder.mid_block.attentions.0." },
  { "encoder.middle.2.*", "encoder.mid_block.resnets.1." },
  { "decoder.middle.2.*", "decoder.mid_block.resnets.1." },
  { NULL, NULL }
};

/* What there is to know of a file before its tensors are named anew. */
typedef struct
{
  const Name *names;            /* NULL: they have diffusers' names already */
  gsize prefix;                 /* characters in front of all of them */
  const char *prefix_of;
  int up_parts;                 /* of the VAE's flat list of the decoder: residual blocks of a level, and its upsampler */
} Naming;

/* `to` with what stood for # and *, new; NULL if it does not fit. */
static char *
rename_by (const Name *names, const char *name)
{
  for (; names->from; names++) {
    const char *n = name, *f = names->from, *number = NULL, *rest = "", *place;
    gsize length = strlen (names->from) - 1, digits = 0;

    if (*f == '*') {
      if (g_str_has_suffix (name, f + 1))
        return g_strdup_printf ("%.*s%s", (int) (strlen (name) - length), name, names->to);
      continue;
    }
    for (; *f && *f != '*'; f++) {
      if (*f == '#') {
        number = n;
        while (g_ascii_isdigit (*n))
          n++;
        digits = n - number;
        if (digits == 0)
          break;
      } else if (*n++ != *f)
        break;
    }
    if (*f == '*')
      rest = n;
    else if (*f || *n)
      continue;
    place = strchr (names->to, '#');
    if (place == NULL)
      return g_strconcat (names->to, rest, NULL);
    return g_strdup_printf ("%.*s%.*s%s%s", (int) (place - names->to), names->to, (int) digits, number, place + 1, rest);
  }
  return NULL;
}

/* Wan2.1 counts residual blocks and upsamplers of all levels in one list, decoder.upsamples.N; Wan2.2-TI2V-5B has a list a level. */
static char *
up_block (const Naming *naming, const char *name)
{
  static const char flat[] = "decoder.upsamples.";
  char *rest, *inner;
  int index, part;

  if (!g_str_has_prefix (name, flat))
    return NULL;
  index = strtol (name + strlen (flat), &rest, 10);
  if (g_str_has_prefix (rest, ".upsamples.")) {
    part = strtol (rest + strlen (".upsamples."), &inner, 10);
    if (g_str_has_prefix (inner, ".resample.") || g_str_has_prefix (inner, ".time_conv."))
      return g_strdup_printf ("decoder.up_blocks.%d.upsampler%s", index, inner);
    return g_strdup_printf ("decoder.up_blocks.%d.resnets.%d%s", index, part, inner);
  }
  part = index % naming->up_parts;
  if (part == naming->up_parts - 1)
    return g_strdup_printf ("decoder.up_blocks.%d.upsamplers.0%s", index / naming->up_parts, rest);
  return g_strdup_printf ("decoder.up_blocks.%d.resnets.%d%s", index / naming->up_parts, part, rest);
}

static char *
down_block (const char *name)
{
  static const char flat[] = "encoder.downsamples.";
  char *rest, *inner;
  int index, part;

  if (!g_str_has_prefix (name, flat))
    return NULL;
  index = strtol (name + strlen (flat), &rest, 10);
  if (!g_str_has_prefix (rest, ".downsamples."))
    return g_strdup_printf ("encoder.down_blocks.%d%s", index, rest);
  part = strtol (rest + strlen (".downsamples."), &inner, 10);
  if (g_str_has_prefix (inner, ".resample.") || g_str_has_prefix (inner, ".time_conv."))
    return g_strdup_printf ("encoder.down_blocks.%d.downsampler%s", index, inner);
  return g_strdup_printf ("encoder.down_blocks.%d.resnets.%d%s", index, part, inner);
}

static char *
new_name (const char *name, gpointer data)
{
  const Naming *naming = data;
  g_autofree char *part = NULL, *place = NULL;
  char *named;

  if (strncmp (name, naming->prefix_of, naming->prefix) == 0)
    name += naming->prefix;
  if (naming->names != vae) {
    named = naming->names ? rename_by (naming->names, name) : NULL;
    return named ? named : g_strdup (name);
  }
  part = rename_by (residual, name);
  if (part)
    name = part;
  place = up_block (naming, name);
  if (place == NULL)
    place = down_block (name);
  if (place == NULL)
    place = rename_by (vae, name);
  return place ? g_steal_pointer (&place) : g_strdup (name);
}

/* kohya's scripts write lora_unet_blocks_0_self_attn_q: the module whose original name is that with dots, or NULL. */
static char *
find_underscored (const char *module)
{
  for (const Name *n = transformer; n->from; n++) {
    g_auto (GStrv) parts = g_strsplit (n->from, "#", 2);
    g_autofree char *head = g_strdelimit (g_strdup (parts[0]), ".", '_');
    g_autofree char *tail = parts[1] ? g_strdelimit (g_strdup (parts[1]), ".", '_') : NULL;
    char *end = (char *) module + strlen (head);

    if (!g_str_has_suffix (n->from, ".*"))
      continue;
    (tail ? tail : head)[strlen (tail ? tail : head) - 2] = 0;  /* _* */
    if (!g_str_has_prefix (module, head))
      continue;
    if (tail == NULL && strcmp (module, head) == 0)
      return g_strndup (n->from, strlen (n->from) - 2);
    if (tail) {
      gint64 number = g_ascii_strtoll (module + strlen (head), &end, 10);

      if (end > module + strlen (head) && strcmp (end, tail) == 0)
        return g_strdup_printf ("%s%" G_GINT64_FORMAT "%.*s", parts[0], number, (int) strlen (parts[1]) - 2, parts[1]);
    }
  }
  return NULL;
}

char *
dp_names_module (const char *module)
{
  static const char *const prefixes[] = { "base_model.model.", "model.diffusion_model.", "diffusion_model.", "transformer.", "model.",
    "net.", "unet.", "lora_unet_" };
  g_autofree char *dotted = NULL, *with_weight = NULL, *renamed = NULL;

  for (gsize i = 0; i < G_N_ELEMENTS (prefixes); i++)
    if (g_str_has_prefix (module, prefixes[i])) {
      module += strlen (prefixes[i]);
      if (strcmp (prefixes[i], "lora_unet_") == 0 && (dotted = find_underscored (module)))
        module = dotted;
    }
  with_weight = g_strconcat (module, ".weight", NULL);
  renamed = rename_by (transformer, with_weight);
  return renamed ? g_strndup (renamed, strlen (renamed) - strlen (".weight")) : g_strdup (module);
}

/* ---- which names a file has ---- */

/* The tensor that tells, and by which table it is named then. */
static const struct
{
  DpNetwork network;
  const char *tensor;
  const Name *names;
} signs[] = {
  { DP_NETWORK_TRANSFORMER, "blocks.0.self_attn.q.weight", transformer },
  { DP_NETWORK_TRANSFORMER, "blocks.0.attn1.to_q.weight", NULL },
  { DP_NETWORK_VAE, "decoder.middle.0.residual.2.weight", vae },
  { DP_NETWORK_VAE, "decoder.mid_block.resnets.0.conv1.weight", NULL },
  { DP_NETWORK_TEXT_ENCODER, "blocks.0.attn.q.weight", text_encoder },
  { DP_NETWORK_TEXT_ENCODER, "enc.blk.0.attn_q.weight", text_encoder_gguf },
  { DP_NETWORK_TEXT_ENCODER, "encoder.block.0.layer.0.SelfAttention.q.weight", NULL },
};

static gboolean
ends_with (const char *name, gpointer tensor)
{
  const char *end = g_str_has_suffix (name, tensor) ? name + strlen (name) - strlen (tensor) : NULL;

  return end && (end == name || end[-1] == '.');
}

static gboolean
ends_otherwise (const char *name, gpointer tensor)
{
  return !ends_with (name, tensor);
}

/* The full name of the tensor that ends so, or NULL. */
static const char *
find_end (const DpWeights *weights, const char *tensor)
{
  return dp_weights_find_unknown (weights, ends_otherwise, (gpointer) tensor);
}

static const char *
find_sign (const DpWeights *weights, DpNetwork network, gsize *which)
{
  for (gsize i = 0; i < G_N_ELEMENTS (signs); i++) {
    const char *found = signs[i].network == network ? find_end (weights, signs[i].tensor) : NULL;

    if (found) {
      *which = i;
      return found;
    }
  }
  return NULL;
}

/* PyTorch's FSDP puts this into names, at any depth. */
#define WRAPPED "_fsdp_wrapped_module."

static gboolean
is_not_wrapped (const char *name, gpointer unused)
{
  return strstr (name, WRAPPED) == NULL;
}

static char *
unwrap (const char *name, gpointer unused)
{
  GString *all = g_string_new (name);

  g_string_replace (all, WRAPPED, "", 0);
  return g_string_free (all, FALSE);
}

gboolean
dp_names_apply (DpWeights *weights, DpNetwork network, GError **error)
{
  gsize which;
  const char *found;
  Naming naming = { .up_parts = 1 };

  if (dp_weights_find_unknown (weights, is_not_wrapped, NULL) && !dp_weights_rename (weights, unwrap, NULL, error))
    return FALSE;
  found = find_sign (weights, network, &which);
  if (found == NULL)
    return TRUE;
  g_autofree char *sign = g_strdup (found);     /* its tensor's name changes */
  naming.names = signs[which].names;
  naming.prefix = strlen (sign) - strlen (signs[which].tensor);
  naming.prefix_of = sign;
  if (naming.names == NULL && naming.prefix == 0)
    return TRUE;
  if (naming.names == vae) {
    /* The first upsampler ends the list of the first level */
    for (int i = 0; i < 64 && naming.up_parts == 1; i++) {
      g_autofree char *name = g_strdup_printf ("%.*sdecoder.upsamples.%d.resample.1.weight", (int) naming.prefix, sign, i);

      if (dp_weights_find (weights, name))
        naming.up_parts = i + 1;
    }
  }
  return dp_weights_rename (weights, new_name, &naming, error);
}

/* Of a network that is like ours, the tensor that ours has not; the others are something else. */
static const struct
{
  const char *tensor, *what;
} relatives[] = {
  { "img_emb.proj.1.weight", "one of image-to-video, which is not supported; use a text-to-video model, or TI2V-5B" },
  { "condition_embedder.image_embedder.ff.net.0.proj.weight", "one of image-to-video, which is not supported; use a text-to-video model, or "
      "TI2V-5B" },
  { "vace_blocks.0.before_proj.weight", "one of VACE, which is not supported; use a text-to-video model" },
  { "vace_blocks.0.proj_in.weight", "one of VACE, which is not supported; use a text-to-video model" },
}, strangers[] = {
  { "input_blocks.0.0.weight", "a Stable Diffusion model; only Wan's are supported" },
  { "double_blocks.0.img_attn.qkv.weight", "FLUX or a model like it; only Wan's are supported" },
  { "double_blocks.0.img_attn_qkv.weight", "HunyuanVideo; only Wan's are supported" },
  { "joint_blocks.0.x_block.attn.qkv.weight", "Stable Diffusion 3; only Wan's are supported" },
  { "blocks.0.self_attn.q.lora_down.weight", "a LoRA, which is not supported" },
  { "blocks.0.self_attn.q.lora_A.weight", "a LoRA, which is not supported" },
  { "blocks.0.attn1.to_q.lora_A.weight", "a LoRA, which is not supported" },
};

const char *
dp_names_recognise (const DpWeights *weights, DpNetwork network)
{
  static const struct { DpNetwork network; const char *what; } ours[] = {
    { DP_NETWORK_TRANSFORMER, "those of a transformer; give them as model or transformer" },
    { DP_NETWORK_VAE, "those of a VAE; give them as vae" },
    { DP_NETWORK_TEXT_ENCODER, "those of a text encoder; give them as text-encoder-file" },
  };
  gsize which;

  for (gsize i = 0; i < G_N_ELEMENTS (relatives) && network == DP_NETWORK_TRANSFORMER; i++)
    if (find_end (weights, relatives[i].tensor))
      return relatives[i].what;
  if (find_sign (weights, network, &which))
    return NULL;
  for (gsize i = 0; i < G_N_ELEMENTS (strangers); i++)
    if (find_end (weights, strangers[i].tensor))
      return strangers[i].what;
  for (gsize i = 0; i < G_N_ELEMENTS (ours); i++)
    if (find_sign (weights, ours[i].network, &which))
      return ours[i].what;
  return "others; is this file of Wan at all?";
}
