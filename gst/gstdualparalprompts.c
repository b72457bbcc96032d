/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "gstdualparalprompts.h"

#include "gstdualparalstoryboard.h"

typedef struct
{
  gchar *prompt, *negative_prompt;
  gint64 frame;
  gboolean untimed;             /* a cue whose frame is not known yet */
  GstClockTime time;            /* of a cue */
  gint transition_blocks;
} Scheduled;

static void
gst_dualparal_prompts_scheduled_clear (gpointer data)
{
  Scheduled *s = data;

  g_free (s->prompt);
  g_free (s->negative_prompt);
}

/* A browser or a script may send any kind of number */
static gboolean
gst_dualparal_prompts_get_int (const GstStructure * structure,
    const gchar * field, gint64 * number)
{
  const GValue *value = gst_structure_get_value (structure, field);
  GValue converted = G_VALUE_INIT;
  gboolean ok = TRUE;

  if (!value)
    return TRUE;
  g_value_init (&converted, G_TYPE_INT64);
  ok = !G_VALUE_HOLDS_STRING (value) && !G_VALUE_HOLDS_BOOLEAN (value)
      && g_value_transform (value, &converted);
  if (ok)
    *number = g_value_get_int64 (&converted);
  g_value_unset (&converted);
  return ok;
}

static gboolean
gst_dualparal_prompts_get_string (const GstStructure * structure,
    const gchar * field, const gchar ** string)
{
  *string = gst_structure_get_string (structure, field);
  return *string || !gst_structure_has_field (structure, field);
}

gboolean
gst_dualparal_prompt_parse (const GstStructure * structure,
    GstDualParalPrompt * prompt, GError ** error)
{
  gint64 blocks = 0;
  gchar *text;

  prompt->at_frame = -1;
  if (gst_dualparal_prompts_get_string (structure, "prompt", &prompt->prompt)
      && prompt->prompt
      && gst_dualparal_prompts_get_string (structure, "negative-prompt",
          &prompt->negative_prompt)
      && gst_dualparal_prompts_get_int (structure, "at-frame",
          &prompt->at_frame)
      && gst_dualparal_prompts_get_int (structure, "transition-blocks", &blocks)
      && blocks >= 0 && blocks <= G_MAXINT) {
    prompt->transition_blocks = blocks;
    return TRUE;
  }
  text = gst_structure_to_string (structure);
  dp_error_set (error, DP_ERROR_SETTINGS,
      "dualparal/set-prompt: expected a string prompt, and optionally a string "
      "negative-prompt and the whole numbers at-frame and transition-blocks, "
      "found %.500s", text);
  g_free (text);
  return FALSE;
}

void
gst_dualparal_prompts_init (GstDualParalPrompts * prompts)
{
  prompts->scheduled = g_array_new (FALSE, FALSE, sizeof (Scheduled));
  g_array_set_clear_func (prompts->scheduled,
      gst_dualparal_prompts_scheduled_clear);
}

void
gst_dualparal_prompts_clear (GstDualParalPrompts * prompts)
{
  g_array_unref (prompts->scheduled);
}

static void
gst_dualparal_prompts_insert (GstDualParalPrompts * prompts,
    Scheduled scheduled)
{
  guint i = prompts->scheduled->len;

  while (i > 0 && g_array_index (prompts->scheduled, Scheduled,
          i - 1).frame > scheduled.frame)
    i--;
  g_array_insert_val (prompts->scheduled, i, scheduled);
}

gboolean
gst_dualparal_prompts_start (GstDualParalPrompts * prompts,
    const gchar * storyboard, GError ** error)
{
  GArray *cues;
  guint i;

  prompts->since = 0;
  prompts->first_frame = 0;
  if (!storyboard)
    return TRUE;
  cues = gst_dualparal_storyboard_read (storyboard, error);
  if (!cues)
    return FALSE;
  for (i = 0; i < cues->len; i++) {
    GstDualParalCue *cue = &g_array_index (cues, GstDualParalCue, i);

    gst_dualparal_prompts_insert (prompts, (Scheduled) {
        .prompt = g_steal_pointer (&cue->prompt),.frame = G_MAXINT64,
          .untimed = TRUE,.time = cue->time});
  }
  g_array_unref (cues);
  return TRUE;
}

void
gst_dualparal_prompts_stop (GstDualParalPrompts * prompts)
{
  g_array_set_size (prompts->scheduled, 0);
}

static gint
gst_dualparal_prompts_by_frame (gconstpointer a, gconstpointer b)
{
  const Scheduled *x = a, *y = b;

  return (x->frame > y->frame) - (x->frame < y->frame);
}

void
gst_dualparal_prompts_open (GstDualParalPrompts * prompts, gint64 frame,
    gint fps_n, gint fps_d, gchar ** prompt, gchar ** negative_prompt)
{
  const Scheduled *due = NULL;
  guint i;

  prompts->first_frame = frame;
  for (i = 0; i < prompts->scheduled->len; i++) {
    Scheduled *s = &g_array_index (prompts->scheduled, Scheduled, i);

    if (s->untimed)
      s->frame = gst_util_uint64_scale_ceil (s->time, fps_n,
          fps_d * GST_SECOND);
    s->untimed = FALSE;
  }
  g_array_sort (prompts->scheduled, gst_dualparal_prompts_by_frame);
  for (i = 0; i < prompts->scheduled->len; i++) {
    const Scheduled *s = &g_array_index (prompts->scheduled, Scheduled, i);

    if (s->frame >= prompts->since && s->frame <= frame)
      due = s;
  }
  if (prompts->since == G_MAXINT64)
    prompts->since = frame;
  if (!due)
    return;
  g_free (*prompt);
  *prompt = g_strdup (due->prompt);
  if (due->negative_prompt) {
    g_free (*negative_prompt);
    *negative_prompt = g_strdup (due->negative_prompt);
  }
}

static gboolean
gst_dualparal_prompts_queue (const Scheduled * s, DpEngine * engine,
    GError ** error)
{
  return dp_engine_queue_prompt (engine, &(DpPrompt) {
      .prompt = s->prompt,.negative_prompt = s->negative_prompt,.at_frame =
        s->frame,.transition_blocks = s->transition_blocks}, error);
}

gboolean
gst_dualparal_prompts_attach (GstDualParalPrompts * prompts, DpEngine * engine,
    GError ** error)
{
  guint i;

  for (i = 0; i < prompts->scheduled->len; i++) {
    const Scheduled *s = &g_array_index (prompts->scheduled, Scheduled, i);

    if (s->frame > prompts->first_frame
        && !gst_dualparal_prompts_queue (s, engine, error))
      return FALSE;
  }
  return TRUE;
}

gboolean
gst_dualparal_prompts_schedule (GstDualParalPrompts * prompts,
    const GstDualParalPrompt * prompt, DpEngine * engine, GError ** error)
{
  Scheduled s = {.frame = prompt->at_frame,.transition_blocks =
        prompt->transition_blocks
  };

  s.prompt = g_strdup (prompt->prompt);
  s.negative_prompt = g_strdup (prompt->negative_prompt);
  if (engine && !gst_dualparal_prompts_queue (&s, engine, error)) {
    gst_dualparal_prompts_scheduled_clear (&s);
    return FALSE;
  }
  gst_dualparal_prompts_insert (prompts, s);
  return TRUE;
}

void
gst_dualparal_prompts_queued (GstDualParalPrompts * prompts, DpEngine * engine)
{
  prompts->since = engine ? dp_engine_next_frame (engine) : G_MAXINT64;
}

void
gst_dualparal_prompts_passed (GstDualParalPrompts * prompts, gint64 frame)
{
  while (prompts->scheduled->len > 1 && g_array_index (prompts->scheduled,
          Scheduled, 1).frame <= frame)
    g_array_remove_index (prompts->scheduled, 0);
}
