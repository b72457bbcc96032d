/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalenums.c: the types of the properties that are enumerations. A nick is also the
 * engine's word for the value.
 */
#include "gstdualparalsettings.h"

static GType
gst_dualparal_register_once (gsize * type, const gchar * name,
    const GEnumValue * values)
{
  if (g_once_init_enter (type))
    g_once_init_leave (type, g_enum_register_static (name, values));
  return *type;
}

GType
gst_dualparal_sampler_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
    {GST_DUALPARAL_SAMPLER_AUTO, "As in the model's scheduler config", "auto"},
    {GST_DUALPARAL_SAMPLER_UNIPC, "UniPC multistep, second order", "unipc"},
    {GST_DUALPARAL_SAMPLER_EULER, "Euler steps", "euler"},
    {0, NULL, NULL},
  };

  return gst_dualparal_register_once (&type, "GstDualParalSampler", values);
}

GType
gst_dualparal_precision_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
    {GST_DUALPARAL_PRECISION_AUTO,
        "The faster of float32 and bfloat16 on the chosen devices", "auto"},
    {GST_DUALPARAL_PRECISION_FLOAT32, "Single precision", "float32"},
    {GST_DUALPARAL_PRECISION_BFLOAT16, "bfloat16 weights and activations",
        "bfloat16"},
    {GST_DUALPARAL_PRECISION_FP8,
        "bfloat16, with the transformer's products and self-attention in e4m3 "
          "(GPUs of compute capability 9.0)", "fp8"},
    {0, NULL, NULL},
  };

  return gst_dualparal_register_once (&type, "GstDualParalPrecision", values);
}

GType
gst_dualparal_prompt_latency_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
    {GST_DUALPARAL_PROMPT_LATENCY_SMOOTH,
        "The next new block shows the prompt", "smooth"},
    {GST_DUALPARAL_PROMPT_LATENCY_LOW,
        "Blocks that are still mostly noise restart", "low"},
    {0, NULL, NULL},
  };

  return gst_dualparal_register_once (&type, "GstDualParalPromptLatency", values);
}

GType
gst_dualparal_text_encoder_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
    {GST_DUALPARAL_TEXT_ENCODER_AUTO, "Resident if there is enough memory",
        "auto"},
    {GST_DUALPARAL_TEXT_ENCODER_RESIDENT, "Kept on the first device",
        "resident"},
    {GST_DUALPARAL_TEXT_ENCODER_STREAMED,
        "Sent to the first device layer by layer, for each prompt", "streamed"},
    {0, NULL, NULL},
  };

  return gst_dualparal_register_once (&type, "GstDualParalTextEncoder", values);
}

GType
gst_dualparal_context_mode_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
    {GST_DUALPARAL_CONTEXT_MODE_AUTO,
        "Cached if neighbouring blocks stand three steps apart or more", "auto"},
    {GST_DUALPARAL_CONTEXT_MODE_RECOMPUTED,
        "The previous block's last latents go through the model again",
        "recomputed"},
    {GST_DUALPARAL_CONTEXT_MODE_CACHED,
        "What the previous block's own pass computed of them is kept",
        "cached"},
    {0, NULL, NULL},
  };

  return gst_dualparal_register_once (&type, "GstDualParalContextMode", values);
}

GType
gst_dualparal_ranks_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
    {GST_DUALPARAL_RANKS_NONE, "All stages are in this process", "none"},
    {GST_DUALPARAL_RANKS_MPI,
        "Each rank that mpirun started is a stage, and this process is rank 0",
        "mpi"},
    {0, NULL, NULL},
  };

  return gst_dualparal_register_once (&type, "GstDualParalRanks", values);
}

GType
gst_dualparal_underrun_policy_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
    {GST_DUALPARAL_UNDERRUN_REPEAT, "Send the previous frame again", "repeat"},
    {GST_DUALPARAL_UNDERRUN_STALL, "Send nothing until a frame is ready",
        "stall"},
    {GST_DUALPARAL_UNDERRUN_GAP, "Send a GAP event in its place", "gap"},
    {GST_DUALPARAL_UNDERRUN_SLOW,
        "Show frames for as long as they take to make", "slow"},
    {GST_DUALPARAL_UNDERRUN_ERROR, "Post an error", "error"},
    {GST_DUALPARAL_UNDERRUN_ADAPTIVE, "As repeat, then as slow while the "
        "generation does not keep up", "adaptive"},
    {0, NULL, NULL},
  };

  return gst_dualparal_register_once (&type, "GstDualParalUnderrunPolicy", values);
}

GType
gst_dualparal_startup_policy_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
    {GST_DUALPARAL_STARTUP_WAIT, "Nothing, until frames are ready", "wait"},
    {GST_DUALPARAL_STARTUP_PLACEHOLDER, "A still picture", "placeholder"},
    {0, NULL, NULL},
  };

  return gst_dualparal_register_once (&type, "GstDualParalStartupPolicy", values);
}
