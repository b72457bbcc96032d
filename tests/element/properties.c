/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The plugin loads, and every property reads back what was set.
 */
#include "element.h"

#define MOST_FRAMES (G_GINT64_CONSTANT (1) << 48)

GST_START_TEST (test_plugin)
{
  GstPlugin *plugin = gst_registry_find_plugin (gst_registry_get (),
      "dualparal");
  GstElementFactory *factory = gst_element_factory_find ("dualparalsrc");
  gchar *name;

  fail_unless (plugin != NULL);
  fail_unless_equals_string (gst_plugin_get_license (plugin), "LGPL");
  name = g_path_get_basename (gst_plugin_get_filename (plugin));
  fail_unless_equals_string (name, "libgstdualparal.so");
  fail_unless (factory != NULL);
  fail_unless_equals_int (gst_plugin_feature_get_rank (GST_PLUGIN_FEATURE
          (factory)), GST_RANK_NONE);
  g_free (name);
  gst_object_unref (plugin);
  gst_object_unref (factory);
}

GST_END_TEST;

GST_START_TEST (test_defaults)
{
  GstElement *src = source_new ("");
  gchar *model, *prompt, *negative, *devices;
  gint steps, block, context, queue, frames, threads, sampler, precision, text;
  gint mode;
  gdouble guidance, guidance_2, low, high, shift;
  gint64 seed;
  gint64 num_frames;
  GstStructure *stats;

  g_object_get (src, "model", &model, "prompt", &prompt, "negative-prompt",
      &negative, "devices", &devices, "steps", &steps, "block-latents", &block,
      "context-latents", &context, "queue-blocks", &queue, "max-queue-frames",
      &frames, "threads", &threads, "sampler", &sampler, "precision",
      &precision, "text-encoder", &text, "context-mode", &mode,
      "guidance-scale", &guidance,
      "guidance-scale-2", &guidance_2, "guidance-interval-low", &low,
      "guidance-interval-high", &high,
      "flow-shift", &shift, "seed", &seed, "num-frames", &num_frames, "stats",
      &stats, NULL);
  fail_unless (model == NULL && prompt == NULL && negative == NULL);
  fail_unless_equals_string (devices, "auto");
  fail_unless (steps == 0 && block == 0 && context == 0 && queue == 0
      && frames == 0 && threads == 0 && sampler == 0 && precision == 0
      && text == 0 && mode == 0);
  fail_unless (guidance == 0 && guidance_2 == 0 && shift == 0 && seed == 0);
  fail_unless (low == 0 && high == 0);
  fail_unless_equals_int64 (num_frames, -1);
  fail_unless (gst_structure_has_name (stats, "application/x-dualparal-stats"));
  fail_unless (gst_structure_has_field_typed (stats, "frames", G_TYPE_UINT64));
  gst_structure_free (stats);
  g_free (devices);
  gst_object_unref (src);
}

GST_END_TEST;

GST_START_TEST (test_read_back)
{
  GstElement *src = source_new ("");
  gchar *model, *prompt, *negative, *devices, *storyboard;
  gint steps, block, context, queue, frames, threads, sampler, precision, text;
  gint mode;
  gdouble guidance, guidance_2, low, high, shift;
  gint64 seed;
  gint64 num_frames;
  gint latency;

  g_object_set (src, "model", "/some/where", "prompt", "a \xc3\xa4 b",
      "negative-prompt", "", "devices", "cpu, cpu", "steps", 7,
      "block-latents", 3, "context-latents", -1, "queue-blocks", 2,
      "max-queue-frames", 5, "threads", 9, "sampler", 2, "precision", 1,
      "text-encoder", 2, "context-mode", 2, "prompt-latency", 1, "storyboard", "/some/where.srt",
      "guidance-scale", 0.1, "guidance-scale-2", 0.2, "flow-shift", 1. / 3,
      "guidance-interval-low", 0.3, "guidance-interval-high", 0.9,
      "seed", G_MAXINT64, "num-frames", MOST_FRAMES, NULL);
  g_object_get (src, "model", &model, "prompt", &prompt, "negative-prompt",
      &negative, "devices", &devices, "steps", &steps, "block-latents", &block,
      "context-latents", &context, "queue-blocks", &queue, "max-queue-frames",
      &frames, "threads", &threads, "sampler", &sampler, "precision",
      &precision, "text-encoder", &text, "context-mode", &mode,
      "prompt-latency", &latency,
      "storyboard", &storyboard, "guidance-scale", &guidance,
      "guidance-scale-2", &guidance_2, "guidance-interval-low", &low,
      "guidance-interval-high", &high,
      "flow-shift", &shift, "seed", &seed, "num-frames", &num_frames, NULL);
  fail_unless_equals_string (model, "/some/where");
  fail_unless_equals_string (prompt, "a \xc3\xa4 b");
  fail_unless_equals_string (negative, "");
  fail_unless_equals_string (devices, "cpu, cpu");
  fail_unless_equals_int (steps, 7);
  fail_unless_equals_int (block, 3);
  fail_unless_equals_int (context, -1);
  fail_unless_equals_int (queue, 2);
  fail_unless_equals_int (frames, 5);
  fail_unless_equals_int (threads, 9);
  fail_unless_equals_int (sampler, 2);
  fail_unless_equals_int (precision, 1);
  fail_unless_equals_int (text, 2);
  fail_unless_equals_int (mode, 2);
  fail_unless_equals_int (latency, 1);
  fail_unless_equals_string (storyboard, "/some/where.srt");
  g_free (storyboard);
  fail_unless (guidance == 0.1 && guidance_2 == 0.2 && shift == 1. / 3);
  fail_unless (low == 0.3 && high == 0.9);
  fail_unless (seed == G_MAXINT64 && num_frames == MOST_FRAMES);
  g_free (model);
  g_free (prompt);
  g_free (negative);
  g_free (devices);

  g_object_set (src, "prompt", NULL, "devices", NULL, NULL);
  g_object_get (src, "prompt", &prompt, "devices", &devices, NULL);
  fail_unless (prompt == NULL && devices == NULL);
  gst_object_unref (src);
}

GST_END_TEST;

GST_START_TEST (test_flags)
{
  static const gchar *const playing[] = { "prompt", "negative-prompt",
    "prompt-latency", "underrun-policy", "max-repeat", "min-framerate", NULL
  };
  GstElement *src = source_new ("");
  GParamSpec **specs;
  guint n, i;

  specs = g_object_class_list_properties (G_OBJECT_GET_CLASS (src), &n);
  for (i = 0; i < n; i++) {
    if (specs[i]->owner_type != G_OBJECT_TYPE (src)
        || !(specs[i]->flags & G_PARAM_WRITABLE))
      continue;
    fail_unless ((specs[i]->flags & GST_PARAM_MUTABLE_PLAYING ? 1 : 0) ==
        g_strv_contains (playing, specs[i]->name), "%s", specs[i]->name);
    fail_unless (specs[i]->flags & (GST_PARAM_MUTABLE_PLAYING |
            GST_PARAM_MUTABLE_READY), "%s", specs[i]->name);
    fail_unless (g_param_spec_get_blurb (specs[i]) != NULL);
  }
  g_free (specs);
  gst_object_unref (src);
}

GST_END_TEST;

/* What the engine takes */
GST_START_TEST (test_ranges)
{
  static const gchar *const names[] = { "guidance-scale", "guidance-scale-2",
    "flow-shift"
  };
  GstElement *src = source_new ("");
  guint i;

  for (i = 0; i < G_N_ELEMENTS (names); i++) {
    GParamSpec *spec = g_object_class_find_property (G_OBJECT_GET_CLASS (src),
        names[i]);

    fail_unless (G_PARAM_SPEC_DOUBLE (spec)->minimum == 0);
    fail_unless (G_PARAM_SPEC_DOUBLE (spec)->maximum == 100);
  }
  gst_object_unref (src);
}

GST_END_TEST;

static gboolean
is_number (GParamSpec * spec)
{
  return G_IS_PARAM_SPEC_INT (spec) || G_IS_PARAM_SPEC_UINT (spec)
      || G_IS_PARAM_SPEC_INT64 (spec) || G_IS_PARAM_SPEC_UINT64 (spec)
      || G_IS_PARAM_SPEC_DOUBLE (spec) || GST_IS_PARAM_SPEC_FRACTION (spec);
}

/* The smallest or the largest value that the property takes */
static void
extreme (GParamSpec * spec, gboolean largest, GValue * value)
{
  if (G_IS_PARAM_SPEC_INT (spec))
    g_value_set_int (value, largest ? G_PARAM_SPEC_INT (spec)->maximum :
        G_PARAM_SPEC_INT (spec)->minimum);
  else if (G_IS_PARAM_SPEC_UINT (spec))
    g_value_set_uint (value, largest ? G_PARAM_SPEC_UINT (spec)->maximum :
        G_PARAM_SPEC_UINT (spec)->minimum);
  else if (G_IS_PARAM_SPEC_INT64 (spec))
    g_value_set_int64 (value, largest ? G_PARAM_SPEC_INT64 (spec)->maximum :
        G_PARAM_SPEC_INT64 (spec)->minimum);
  else if (G_IS_PARAM_SPEC_UINT64 (spec))
    g_value_set_uint64 (value, largest ? G_PARAM_SPEC_UINT64 (spec)->maximum :
        G_PARAM_SPEC_UINT64 (spec)->minimum);
  else if (G_IS_PARAM_SPEC_DOUBLE (spec))
    g_value_set_double (value, largest ? G_PARAM_SPEC_DOUBLE (spec)->maximum :
        G_PARAM_SPEC_DOUBLE (spec)->minimum);
  else if (largest)
    gst_value_set_fraction (value, GST_PARAM_SPEC_FRACTION (spec)->max_num,
        GST_PARAM_SPEC_FRACTION (spec)->max_den);
  else
    gst_value_set_fraction (value, GST_PARAM_SPEC_FRACTION (spec)->min_num,
        GST_PARAM_SPEC_FRACTION (spec)->min_den);
}

static GstPadProbeReturn
take_nothing (GstPad * pad, GstPadProbeInfo * info, gpointer user_data)
{
  GstQuery *query = GST_PAD_PROBE_INFO_QUERY (info);
  GstCaps *none;

  if (GST_QUERY_TYPE (query) != GST_QUERY_CAPS)
    return GST_PAD_PROBE_OK;
  none = gst_caps_new_empty ();
  gst_query_set_caps_result (query, none);
  gst_caps_unref (none);
  return GST_PAD_PROBE_HANDLED;
}

/* Whether the element starts with the value, or else why: all that depends on
 * settings is said then. No caps are possible, so that no engine opens. */
static gchar *
refusal (GParamSpec * spec, gboolean largest, const gchar * properties)
{
  GstElement *pipeline = launch ("dualparalsrc name=src %s ! "
      "fakesink name=sink", properties);
  GstElement *src = gst_bin_get_by_name (GST_BIN (pipeline), "src");
  GstElement *sink = gst_bin_get_by_name (GST_BIN (pipeline), "sink");
  GstPad *pad = gst_element_get_static_pad (sink, "sink");
  GValue value = G_VALUE_INIT;
  GstMessage *message;
  gchar *why = NULL;
  GError *error;

  gst_pad_add_probe (pad, GST_PAD_PROBE_TYPE_QUERY_DOWNSTREAM, take_nothing,
      NULL, NULL);
  g_value_init (&value, spec->value_type);
  extreme (spec, largest, &value);
  g_object_set_property (G_OBJECT (src), spec->name, &value);
  g_value_unset (&value);
  if (gst_element_set_state (pipeline, GST_STATE_PAUSED) ==
      GST_STATE_CHANGE_FAILURE) {
    message = wait_message (pipeline, GST_MESSAGE_ERROR, 30);
    gst_message_parse_error (message, &error, NULL);
    why = g_strdup (error->message);
    g_error_free (error);
    gst_message_unref (message);
  }
  gst_element_set_state (pipeline, GST_STATE_NULL);
  gst_object_unref (pad);
  gst_object_unref (sink);
  gst_object_unref (src);
  gst_object_unref (pipeline);
  return why;
}

/* What a property takes, the engine takes too, beside others that go with it */
GST_START_TEST (test_extremes)
{
  static const struct
  {
    const gchar *name, *with;
    const gchar *why;           /* this model refuses the largest, others take it */
  } others[] = {
    {"context-latents", "block-latents=1024", NULL},
    {"queue-blocks", "steps=1000", NULL},
    {"guidance-scale-2", "", "second transformer"},
  };
  GstElement *src = source_new ("");
  GParamSpec **specs;
  guint n, i, j, numbers = 0;

  specs = g_object_class_list_properties (G_OBJECT_GET_CLASS (src), &n);
  for (i = 0; i < 2 * n; i++) {
    GParamSpec *spec = specs[i / 2];
    const gchar *with = "", *expected = NULL;
    gchar *why;

    if (spec->owner_type != G_OBJECT_TYPE (src) || !is_number (spec))
      continue;
    numbers++;
    for (j = 0; j < G_N_ELEMENTS (others) && i % 2; j++)
      if (g_str_equal (others[j].name, spec->name)) {
        with = others[j].with;
        expected = others[j].why;
      }
    why = refusal (spec, i % 2, with);
    fail_unless (why == NULL || (expected && strstr (why, expected)),
        "the %s %s: %s", i % 2 ? "largest" : "smallest", spec->name, why);
    g_free (why);
  }
  fail_unless (numbers >= 2 * 14, "only %u", numbers);
  g_free (specs);
  gst_object_unref (src);
}

GST_END_TEST;

GST_START_TEST (test_marking)
{
  GstElement *src = source_new ("");
  guint marking;

  g_object_get (src, "marking", &marking, NULL);
  fail_unless_equals_int (marking, 7);
  gst_util_set_object_arg (G_OBJECT (src), "marking", "tags+sei");
  g_object_get (src, "marking", &marking, NULL);
  fail_unless_equals_int (marking, 5);
  g_object_set (src, "marking", 0, NULL);
  g_object_get (src, "marking", &marking, NULL);
  fail_unless_equals_int (marking, 0);
  gst_object_unref (src);
}

GST_END_TEST;

GST_START_TEST (test_live_properties)
{
  GstElement *src = source_new ("");
  gint prebuffer, underrun, repeat, startup, n, d;
  gboolean is_live;
  gchar *picture;

  g_object_get (src, "is-live", &is_live, "prebuffer", &prebuffer,
      "underrun-policy", &underrun, "max-repeat", &repeat, "min-framerate", &n,
      &d, "startup-policy", &startup, "placeholder", &picture, NULL);
  fail_unless (!is_live && prebuffer == 0 && underrun == 0 && repeat == -1);
  fail_unless (n == 0 && d == 1 && startup == 0 && picture == NULL);

  g_object_set (src, "is-live", TRUE, "prebuffer", 7, "underrun-policy", 3,
      "max-repeat", 5, "min-framerate", 15, 2, "startup-policy", 1,
      "placeholder", "/some/where.png", NULL);
  g_object_get (src, "is-live", &is_live, "prebuffer", &prebuffer,
      "underrun-policy", &underrun, "max-repeat", &repeat, "min-framerate", &n,
      &d, "startup-policy", &startup, "placeholder", &picture, NULL);
  fail_unless (is_live && prebuffer == 7 && underrun == 3 && repeat == 5);
  fail_unless (n == 15 && d == 2 && startup == 1);
  fail_unless_equals_string (picture, "/some/where.png");
  g_free (picture);
  gst_object_unref (src);
}

GST_END_TEST;

/* While it runs too, from another thread than the one that streams */
GST_START_TEST (test_stats)
{
  GstHarness *h = source_harness (FAST "num-frames=5 devices=cpu,cpu", SMALL);
  GstStructure *stats;
  const GValue *busy;
  guint64 frames;
  guint i;

  gst_harness_play (h);
  for (i = 0; i < 5; i++)
    gst_buffer_unref (gst_harness_pull (h));
  g_object_get (h->element, "stats", &stats, NULL);
  fail_unless (gst_structure_get_uint64 (stats, "frames", &frames));
  fail_unless_equals_uint64 (frames, 5);
  busy = gst_structure_get_value (stats, "stage-busy");
  fail_unless_equals_int (gst_value_array_get_size (busy), 2);
  gst_structure_free (stats);
  gst_harness_teardown (h);
}

GST_END_TEST;

static Suite *
properties_suite (void)
{
  Suite *s = suite_create ("properties");
  TCase *tc = test_case_new (s);

  tcase_add_test (tc, test_plugin);
  tcase_add_test (tc, test_defaults);
  tcase_add_test (tc, test_read_back);
  tcase_add_test (tc, test_live_properties);
  tcase_add_test (tc, test_ranges);
  tcase_add_test (tc, test_extremes);
  tcase_add_test (tc, test_marking);
  tcase_add_test (tc, test_flags);
  tcase_add_test (tc, test_stats);
  return s;
}

GST_CHECK_MAIN (properties);
