/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "scripted.h"

#include <string.h>

#define TEMPORAL 4              /* frames a latent */
#define MAX_MARKS 16
/* Seconds of the wall until a test says that the element is stuck */
#define STUCK 30

typedef struct
{
  gint64 block;
  gchar *prompt;
} Change;

static struct
{
  GMutex lock;
  GCond cond;                   /* the script, a flush or a wait's end */
  GstTestClock *clock;

  /* -- protected by lock */
  GArray *times;                /* GstClockTime, when each frame is there */
  GstClockTime error_time;
  DpError error;
  gboolean loads;
  DpStats stats;
  guint opened;
  guint changes;                /* of the script */
  GstClockID wait;              /* of the element, or NULL */
  GHashTable *marks;            /* word -> times that it was said */
  guint calls;                  /* gst_element_call_async() that still run */
} script;

struct _DpPlan
{
  gint ref_count;               /* atomic */
  DpSettings settings;          /* resolved */
  DpModelInfo model;
  GStringChunk *storage;
};

struct _DpEngine
{
  DpPlan *plan;
  GstClockTime opened;
  DpProgress progress;
  gpointer user_data;

  /* -- protected by the script's lock */
  gint64 pulled;                /* frames */
  gint lent;
  gboolean flushing, woken, loaded;
  GArray *changes;              /* Change, by block */
  const gchar *prompt;          /* of the frame that was pulled last */
  GStringChunk *prompts;
  guint prompt_id;
};

/* -- the script */

void gst_plugin_dualparal_register (void);

static void
begin (void)
{
  gst_plugin_dualparal_register ();
  script.clock = GST_TEST_CLOCK (gst_test_clock_new ());
  script.times = g_array_new (FALSE, FALSE, sizeof (GstClockTime));
  script.marks = g_hash_table_new_full (g_str_hash, g_str_equal, g_free, NULL);
  script.error_time = GST_CLOCK_TIME_NONE;
  script.loads = TRUE;
  script.opened = 0;
  memset (&script.stats, 0, sizeof (script.stats));
}

static void
end (void)
{
  script_posted ();
  g_array_unref (script.times);
  g_hash_table_unref (script.marks);
  gst_clear_object (&script.clock);
}

TCase *
script_case_new (Suite * suite)
{
  return test_case_new_with (suite, begin, end);
}

GstTestClock *
script_clock (void)
{
  return script.clock;
}

/* Ends the wait, and so that nobody takes it for one that goes on. Under the lock. */
static void
end_engine_wait (void)
{
  if (script.wait)
    gst_clock_id_unschedule (script.wait);
  g_cond_broadcast (&script.cond);
}

void
script_frames (guint n, GstClockTime time)
{
  g_mutex_lock (&script.lock);
  while (n-- > 0)
    g_array_append_val (script.times, time);
  script.changes++;
  end_engine_wait ();
  g_mutex_unlock (&script.lock);
}

void
script_error (DpError code, GstClockTime time)
{
  g_mutex_lock (&script.lock);
  script.error = code;
  script.error_time = time;
  script.changes++;
  end_engine_wait ();
  g_mutex_unlock (&script.lock);
}

void
script_loads (gboolean loads)
{
  script.loads = loads;
}

void
script_stats (const DpStats * stats)
{
  g_mutex_lock (&script.lock);
  script.stats = *stats;
  g_mutex_unlock (&script.lock);
}

/* The time of the wait that ends first */
static GstClockTime
next_wait (void)
{
  GstClockTime time;
  GstClockID id;
  GList *list = NULL;

  fail_unless (gst_test_clock_timed_wait_for_multiple_pending_ids (script.clock,
          1, STUCK * 1000, &list), "the element does not wait for the clock");
  g_list_free_full (list, gst_clock_id_unref);
  fail_unless (gst_test_clock_peek_next_pending_id (script.clock, &id));
  time = gst_clock_id_get_time (id);
  gst_clock_id_unref (id);
  return time;
}

/* Of the one that ends now */
static void
process_wait (void)
{
  GstClockID id = gst_test_clock_process_next_clock_id (script.clock);

  if (id)
    gst_clock_id_unref (id);
}

static void
move_to (GstClockTime time)
{
  if (time > gst_clock_get_time (GST_CLOCK (script.clock)))
    gst_test_clock_set_time (script.clock, time);
}

void
script_advance (GstClockTime time)
{
  GstClockTime next;

  while ((next = next_wait ()) <= time) {
    move_to (next);
    process_wait ();
  }
  move_to (time);
}

void
script_jump (GstClockTime time)
{
  next_wait ();
  move_to (time);
  script_advance (time);
}

void
script_step (void)
{
  move_to (next_wait ());
  process_wait ();
}

/* -- in place of GStreamer's, whose threads nobody can wait for */

typedef struct
{
  GstElement *element;
  GstElementCallAsyncFunc func;
  gpointer data;
  GDestroyNotify destroy;
} Call;

static gpointer
call (gpointer data)
{
  Call *c = data;

  c->func (c->element, c->data);
  if (c->destroy)
    c->destroy (c->data);
  gst_object_unref (c->element);
  g_free (c);
  g_mutex_lock (&script.lock);
  script.calls--;
  g_cond_broadcast (&script.cond);
  g_mutex_unlock (&script.lock);
  return NULL;
}

void
gst_element_call_async (GstElement * element, GstElementCallAsyncFunc func,
    gpointer user_data, GDestroyNotify destroy_notify)
{
  Call *c = g_new (Call, 1);

  *c = (Call) { gst_object_ref (element), func, user_data, destroy_notify };
  g_mutex_lock (&script.lock);
  script.calls++;
  g_mutex_unlock (&script.lock);
  g_thread_unref (g_thread_new ("call", call, c));
}

void
script_posted (void)
{
  g_mutex_lock (&script.lock);
  while (script.calls > 0)
    g_cond_wait (&script.cond, &script.lock);
  g_mutex_unlock (&script.lock);
}

guint
script_opened (void)
{
  return script.opened;
}

guint
script_marked (const gchar * what)
{
  guint n;

  g_mutex_lock (&script.lock);
  n = GPOINTER_TO_UINT (g_hash_table_lookup (script.marks, what));
  g_mutex_unlock (&script.lock);
  return n;
}

/* -- time. All of it under the lock. */

static GstClockTime
since_opened (const DpEngine * e)
{
  return gst_clock_get_time (GST_CLOCK (script.clock)) - e->opened;
}

/* How many frames the video has, as far as it is written */
static gint64
length (const DpEngine * e)
{
  const gint64 n = script.times->len;

  return e->plan->settings.num_frames > 0 ? MIN (n, e->plan->settings.num_frames) : n;
}

/* When there are n of them in all, of an endless time: never */
static GstClockTime
time_of (const DpEngine * e, gint64 n)
{
  return n <= length (e) ? g_array_index (script.times, GstClockTime, n - 1) :
      GST_CLOCK_TIME_NONE;
}

/* Of the video so far */
static gint64
made (const DpEngine * e)
{
  const GstClockTime now = since_opened (e);
  gint64 n = e->pulled;

  while (n < e->pulled + e->plan->settings.max_queue_frames
      && time_of (e, n + 1) <= now)
    n++;
  return n;
}

static gboolean
has_failed (const DpEngine * e)
{
  return script.error_time <= since_opened (e);
}

static gboolean
has_ended (const DpEngine * e)
{
  return has_failed (e) || (e->plan->settings.num_frames > 0
      && made (e) >= e->plan->settings.num_frames);
}

static gboolean
wake (GstClock * clock, GstClockTime time, GstClockID id, gpointer data)
{
  g_mutex_lock (&script.lock);
  g_cond_broadcast (&script.cond);
  g_mutex_unlock (&script.lock);
  return TRUE;
}

/* Until the clock has that time, the script changes, or it is flushed or, where
 * `wakes`, woken */
static void
wait_for (DpEngine * e, GstClockTime time, gboolean wakes)
{
  const GstClockTime never = G_MAXINT64;
  const guint changes = script.changes;
  GstClockID id;

  id = gst_clock_new_single_shot_id (GST_CLOCK (script.clock),
      time < never - e->opened ? e->opened + time : never);
  gst_clock_id_wait_async (id, wake, NULL, NULL);
  script.wait = id;
  while (since_opened (e) < time && !e->flushing && !(wakes && e->woken)
      && script.changes == changes)
    g_cond_wait (&script.cond, &script.lock);
  script.wait = NULL;
  gst_clock_id_unschedule (id);
  gst_clock_id_unref (id);
}

static GstClockTime
deadline_after (const DpEngine * e, gint64 timeout_us)
{
  const GstClockTime now = since_opened (e);

  if (timeout_us < 0 || timeout_us > G_MAXINT64 / 2000)
    return GST_CLOCK_TIME_NONE;
  return now + timeout_us * GST_USECOND;
}

/* -- blocks, of `block_latents` each */

static gint64
first_frame (const DpEngine * e, gint64 block)
{
  const gint64 latents = block * e->plan->settings.block_latents;

  return latents == 0 ? 0 : 1 + (latents - 1) * TEMPORAL;
}

static gint64
block_of (const DpEngine * e, gint64 frame)
{
  return (frame + TEMPORAL - 1) / TEMPORAL / e->plan->settings.block_latents;
}

/* One of which no frame is there yet */
static gint64
next_block (const DpEngine * e)
{
  const gint64 n = made (e);

  return n == 0 ? 0 : block_of (e, n - 1) + 1;
}

/* None of whose frames comes before that one */
static gint64
block_from (const DpEngine * e, gint64 frame)
{
  const gint64 block = block_of (e, frame);

  return block + (first_frame (e, block) < frame);
}

/* -- dualparal.h */

DpPlan *
dp_plan_new (const DpSettings * settings, GError ** error)
{
  DpPlan *plan = g_new0 (DpPlan, 1);
  DpSettings *s = &plan->settings;
  const gchar *const defaults[] = { "scripted", "a prompt", "", "cpu", "unipc",
    "float32", "resident", "recomputed"
  };
  const gchar **strings[] = { &s->model, &s->prompt, &s->negative_prompt,
    &s->devices, &s->sampler, &s->precision, &s->text_encoder,
    &s->context_mode
  };
  guint i;

  *s = *settings;
  plan->ref_count = 1;
  plan->storage = g_string_chunk_new (256);
  for (i = 0; i < G_N_ELEMENTS (strings); i++)
    *strings[i] = g_string_chunk_insert (plan->storage,
        *strings[i] ? *strings[i] : defaults[i]);
  s->trace = NULL;
  s->width = s->width ? s->width : SCRIPT_SIZE;
  s->height = s->height ? s->height : SCRIPT_SIZE;
  s->steps = s->steps ? s->steps : 1;
  s->guidance_scale = s->guidance_scale != 0 ? s->guidance_scale : 1;
  s->flow_shift = s->flow_shift != 0 ? s->flow_shift : 1;
  s->block_latents = s->block_latents ? s->block_latents :
      SCRIPT_BLOCK / TEMPORAL;
  s->context_latents = -1;
  s->queue_blocks = s->queue_blocks ? s->queue_blocks : 1;
  s->threads = s->threads ? s->threads : 1;
  s->text_length = s->text_length ? s->text_length : 512;
  s->max_queue_frames = s->max_queue_frames ? s->max_queue_frames :
      2 * s->block_latents * TEMPORAL + 1;
  plan->model = (DpModelInfo) {
  .name = "scripted",.width = SCRIPT_SIZE,.height = SCRIPT_SIZE,.fps_n =
        SCRIPT_FPS,.fps_d = 1,.layers = 1,.latent_channels =
        16,.spatial_scale = 8,.temporal_scale = TEMPORAL,.knows = ""};
  return plan;
}

DpPlan *
dp_plan_with (const DpPlan * plan, const DpSettings * settings, GError ** error)
{
  return dp_plan_new (settings, error);
}

DpPlan *
dp_plan_ref (DpPlan * plan)
{
  g_atomic_int_inc (&plan->ref_count);
  return plan;
}

void
dp_plan_unref (DpPlan * plan)
{
  if (!plan || !g_atomic_int_dec_and_test (&plan->ref_count))
    return;
  g_string_chunk_free (plan->storage);
  g_free (plan);
}

const DpSettings *
dp_plan_settings (const DpPlan * plan)
{
  return &plan->settings;
}

const DpModelInfo *
dp_plan_model (const DpPlan * plan)
{
  return &plan->model;
}

const char *
dp_plan_passed_over (const DpPlan * plan)
{
  return NULL;
}

char *
dp_plan_unknown_words (const DpPlan * plan, const char *prompt)
{
  return NULL;
}

const char *
dp_plan_unguided (const DpPlan * plan)
{
  return NULL;
}

const char *
dp_plan_starved (const DpPlan * plan)
{
  return NULL;
}

const char *
dp_plan_untrained (const DpPlan * plan)
{
  return NULL;
}

const char *
dp_plan_unheld (const DpPlan * plan)
{
  return NULL;
}

char *
dp_plan_describe (const DpPlan * plan)
{
  return g_strdup ("a script");
}

gboolean
dp_prompt_check (const char *prompt, GError ** error)
{
  return TRUE;
}

static void
change_clear (gpointer data)
{
  g_free (((Change *) data)->prompt);
}

gboolean
dp_engine_open (DpEngine ** engine, DpPlan * plan,
    DpProgress progress, gpointer user_data, GError ** error)
{
  DpEngine *e = g_new0 (DpEngine, 1);

  e->plan = dp_plan_ref (plan);
  e->prompt = plan->settings.prompt;
  e->prompts = g_string_chunk_new (256);
  e->changes = g_array_new (FALSE, FALSE, sizeof (Change));
  g_array_set_clear_func (e->changes, change_clear);
  e->opened = gst_clock_get_time (GST_CLOCK (script.clock));
  e->progress = progress;
  e->user_data = user_data;
  script.opened++;
  progress ("load-model", "a script", 0, user_data);
  *engine = e;
  return TRUE;
}

void
dp_engine_free (DpEngine * e)
{
  if (!e)
    return;
  g_assert_cmpint (e->lent, ==, 0);
  if (!e->loaded)
    e->progress ("load-model", "cancelled", -1, e->user_data);
  g_array_unref (e->changes);
  g_string_chunk_free (e->prompts);
  dp_plan_unref (e->plan);
  g_free (e);
}

static gint
by_block (gconstpointer a, gconstpointer b)
{
  const Change *x = a, *y = b;

  return (x->block > y->block) - (x->block < y->block);
}

/* One for the next block replaces those for it that still wait */
gboolean
dp_engine_queue_prompt (DpEngine * e, const DpPrompt * prompt, GError ** error)
{
  Change change;
  gint64 next;
  guint i;

  g_mutex_lock (&script.lock);
  next = next_block (e);
  change.block = prompt->at_frame < 0 ? next : block_from (e,
      prompt->at_frame - e->plan->settings.first_frame);
  if (change.block < next) {
    g_mutex_unlock (&script.lock);
    g_set_error (error, DP_ERROR, DP_ERROR_SETTINGS, "the script is past frame %"
        G_GINT64_FORMAT, prompt->at_frame);
    return FALSE;
  }
  for (i = e->changes->len; i-- > 0;)
    if (g_array_index (e->changes, Change, i).block == change.block)
      g_array_remove_index (e->changes, i);
  change.prompt = g_strdup (prompt->prompt);
  g_array_append_val (e->changes, change);
  g_array_sort (e->changes, by_block);
  g_mutex_unlock (&script.lock);
  return TRUE;
}

gint64
dp_engine_next_frame (DpEngine * e)
{
  gint64 frame;

  g_mutex_lock (&script.lock);
  frame = e->plan->settings.first_frame + first_frame (e, next_block (e));
  g_mutex_unlock (&script.lock);
  return frame;
}

/* Planes one below the other, each row as long as the longest */
static void
fill (DpEngine * e, DpFrame * frame)
{
  const DpFormat format = e->plan->settings.format;
  const gint width = e->plan->settings.width, height = e->plan->settings.height;
  const gint stride = width * (format <= DP_FORMAT_NV12 ? 1 :
      format <= DP_FORMAT_BGR ? 3 : 4);
  gint p;

  *frame = (DpFrame) {
  .index = e->plan->settings.first_frame + e->pulled,.block = block_of (e, e->pulled),.width = width,
        .height = height,.format = format,.n_planes =
        format == DP_FORMAT_I420 ? 3 : format == DP_FORMAT_NV12 ? 2 : 1};
  frame->slot = g_malloc (frame->n_planes * stride * height);
  memset (frame->slot, e->pulled, frame->n_planes * stride * height);
  for (p = 0; p < frame->n_planes; p++) {
    frame->planes[p] = (guint8 *) frame->slot + p * stride * height;
    frame->strides[p] = stride;
  }
  while (e->changes->len > 0
      && g_array_index (e->changes, Change, 0).block <= frame->block) {
    e->prompt = g_string_chunk_insert (e->prompts, g_array_index (e->changes,
            Change, 0).prompt);
    g_array_remove_index (e->changes, 0);
    frame->prompt_changed = e->pulled > 0;
    e->prompt_id += frame->prompt_changed;
  }
  frame->prompt = e->prompt;
  frame->prompt_id = e->prompt_id;
  e->pulled++;
  e->lent++;
}

static void
load (DpEngine * e)
{
  gint percent;

  if (e->loaded || !script.loads)
    return;
  e->loaded = TRUE;
  for (percent = 1; percent <= 100; percent++)
    e->progress ("load-model", "a script", percent, e->user_data);
}

/* What a pull finds now; -2 is nothing */
static gint
take (DpEngine * e, DpFrame * frame, GError ** error)
{
  if (e->flushing) {
    g_set_error (error, DP_ERROR, DP_ERROR_FLUSHING, "flushing");
    return -1;
  }
  if (made (e) > e->pulled) {
    fill (e, frame);
    return 1;
  }
  if (has_failed (e)) {
    g_set_error (error, DP_ERROR, script.error, "the script has an error here");
    return -1;
  }
  return has_ended (e) ? 0 : -2;
}

int
dp_engine_pull (DpEngine * e, DpFrame * frame, gint64 timeout_us,
    GError ** error)
{
  GstClockTime deadline;
  gint result;

  load (e);
  g_mutex_lock (&script.lock);
  deadline = deadline_after (e, timeout_us);
  while ((result = take (e, frame, error)) == -2 && since_opened (e) < deadline)
    wait_for (e, MIN (MIN (time_of (e, e->pulled + 1), script.error_time),
            deadline), FALSE);
  g_mutex_unlock (&script.lock);
  return MAX (result, -1);
}

gboolean
dp_engine_wait (DpEngine * e, guint frames, gint64 timeout_us)
{
  GstClockTime deadline;
  gboolean flushing;
  gint64 wanted;

  load (e);
  g_mutex_lock (&script.lock);
  deadline = deadline_after (e, timeout_us);
  wanted = e->pulled + MIN (frames, (guint) e->plan->settings.max_queue_frames);
  while (!e->flushing && !e->woken && made (e) < wanted && !has_ended (e)
      && since_opened (e) < deadline)
    wait_for (e, MIN (MIN (time_of (e, e->plan->settings.num_frames > 0 ?
                    MIN (wanted, e->plan->settings.num_frames) : wanted),
                script.error_time), deadline), TRUE);
  e->woken = FALSE;
  flushing = e->flushing;
  g_mutex_unlock (&script.lock);
  return !flushing;
}

void
dp_engine_wake (DpEngine * e)
{
  g_mutex_lock (&script.lock);
  e->woken = TRUE;
  end_engine_wait ();
  g_mutex_unlock (&script.lock);
}

void
dp_engine_release_frame (DpEngine * e, DpFrame * frame)
{
  g_mutex_lock (&script.lock);
  e->lent--;
  g_mutex_unlock (&script.lock);
  g_clear_pointer (&frame->slot, g_free);
}

void
dp_engine_set_flushing (DpEngine * e, gboolean flushing)
{
  g_mutex_lock (&script.lock);
  e->flushing = flushing;
  end_engine_wait ();
  g_mutex_unlock (&script.lock);
}

gboolean
dp_engine_set_preview (DpEngine * e, DpPreviewCallback callback,
    gpointer user_data, GError ** error)
{
  g_set_error_literal (error, DP_ERROR, DP_ERROR_SETTINGS,
      "preview: a script has no preview_map");
  return FALSE;
}

void
dp_engine_mark (DpEngine * e, const char *what)
{
  g_mutex_lock (&script.lock);
  g_hash_table_replace (script.marks, g_strdup (what),
      GUINT_TO_POINTER (GPOINTER_TO_UINT (g_hash_table_lookup (script.marks,
                  what)) + 1));
  g_mutex_unlock (&script.lock);
}

gboolean
dp_engine_check_trace (DpEngine * e, GError ** error)
{
  return TRUE;
}

gboolean
dp_engine_end_trace (DpEngine * e, GError ** error)
{
  return TRUE;
}

void
dp_engine_get_stats (DpEngine * e, DpStats * stats)
{
  g_mutex_lock (&script.lock);
  *stats = script.stats;
  stats->frames = made (e);
  stats->queue_frames = stats->frames - e->pulled;
  stats->ended = has_ended (e);
  stats->stages = 1;
  g_mutex_unlock (&script.lock);
}
