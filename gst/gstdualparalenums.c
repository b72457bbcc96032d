/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * gstdualparalenums.c: the types of properties that are one of a few words.
 */
#include "gstdualparalsettings.h"

static GType
register_once (gsize * type, const gchar * name, const GEnumValue * values)
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
    {GST_DUALPARAL_SAMPLER_AUTO, "What the model's scheduler config says",
        "auto"},
    {GST_DUALPARAL_SAMPLER_UNIPC, "UniPC multistep, second order", "unipc"},
    {GST_DUALPARAL_SAMPLER_EULER, "Euler steps", "euler"},
    {0, NULL, NULL},
  };

  return register_once (&type, "GstDualParalSampler", values);
}

GType
gst_dualparal_precision_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
    {GST_DUALPARAL_PRECISION_AUTO, "The faster one on the chosen devices",
        "auto"},
    {GST_DUALPARAL_PRECISION_FLOAT32, "Single precision", "float32"},
    {GST_DUALPARAL_PRECISION_BFLOAT16, "bfloat16 weights and activations",
        "bfloat16"},
    {GST_DUALPARAL_PRECISION_FP8, "bfloat16, and the transformer's products and "
          "self-attention in e4m3 (GPUs of compute capability 9.0)", "fp8"},
    {0, NULL, NULL},
  };

  return register_once (&type, "GstDualParalPrecision", values);
}

GType
gst_dualparal_prompt_latency_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
    {GST_DUALPARAL_PROMPT_LATENCY_SMOOTH,
        "The next block that is begun shows it", "smooth"},
    {GST_DUALPARAL_PROMPT_LATENCY_LOW,
        "Blocks that are still mostly noise begin anew", "low"},
    {0, NULL, NULL},
  };

  return register_once (&type, "GstDualParalPromptLatency", values);
}

GType
gst_dualparal_text_encoder_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
    {GST_DUALPARAL_TEXT_ENCODER_AUTO, "Resident where everything has room",
        "auto"},
    {GST_DUALPARAL_TEXT_ENCODER_RESIDENT, "On the first device", "resident"},
    {GST_DUALPARAL_TEXT_ENCODER_STREAMED,
        "To the first device layer by layer, for each prompt", "streamed"},
    {0, NULL, NULL},
  };

  return register_once (&type, "GstDualParalTextEncoder", values);
}

GType
gst_dualparal_underrun_policy_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
    {GST_DUALPARAL_UNDERRUN_REPEAT, "The frame before once more", "repeat"},
    {GST_DUALPARAL_UNDERRUN_STALL, "Nothing, until there is a frame", "stall"},
    {GST_DUALPARAL_UNDERRUN_GAP, "A GAP event in its place", "gap"},
    {GST_DUALPARAL_UNDERRUN_SLOW,
        "Frames last as long as it takes to make them", "slow"},
    {GST_DUALPARAL_UNDERRUN_ERROR, "An error", "error"},
    {0, NULL, NULL},
  };

  return register_once (&type, "GstDualParalUnderrunPolicy", values);
}

GType
gst_dualparal_startup_policy_get_type (void)
{
  static gsize type = 0;
  static const GEnumValue values[] = {
    {GST_DUALPARAL_STARTUP_WAIT, "Nothing, until there are frames", "wait"},
    {GST_DUALPARAL_STARTUP_PLACEHOLDER, "A still picture", "placeholder"},
    {0, NULL, NULL},
  };

  return register_once (&type, "GstDualParalStartupPolicy", values);
}
