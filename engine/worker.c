/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "worker.h"
#include "thread.h"
#include "wan/device_error.h"

/* A message whose pass was queued on the device. */
typedef struct
{
  DpBlockHeader header;
  DpMark *start, *end;
  gboolean whole;               /* nothing was cancelled while it was queued */
} Pass;

struct _DpWorker
{
  /* -- immutable -- */
  DpWorkerSpec spec;
  GThread *thread;

  /* -- owned by the thread -- */
  DpDevice *dev;                /* NULL until the stage is loaded */
  gboolean failed;              /* a pass, here or before it came here */
  Pass passes[2];
  guint queued, settled;        /* passes so far */
  gint64 pass_us;               /* that the elements of the pass have taken so far */
  gint64 paced_us;              /* time until the last block was finished, without that in which all was held up */

  /* -- protected by lock -- */
  GMutex lock;
  DpWorkerStats stats;
};

static gboolean
cancelled (const DpWorker *w)
{
  return g_atomic_int_get (w->spec.cancel) != 0;
}

/* ---- passes ---- */

/* Waits until at most `left` passes are still queued, and accounts for the others. */
static void
settle (DpWorker *w, guint left)
{
  const DpOps *ops = w->dev->ops;

  for (; w->queued - w->settled > left; w->settled++) {
    const Pass *p = &w->passes[w->settled % G_N_ELEMENTS (w->passes)];
    const DpBlockHeader *h = &p->header;
    DpHalves halves;

    ops->mark_wait (w->dev, p->end);
    if (!p->whole)
      continue;
    gint64 start = ops->mark_time (w->dev, p->start), end = ops->mark_time (w->dev, p->end);
    w->pass_us = end - start + (h->element > 0 ? w->pass_us : 0);
    g_mutex_lock (&w->lock);
    w->stats.busy_us += end - start;
    if (h->element == h->elements - 1)
      dp_recent_add (&w->stats.pass_seconds, w->pass_us / 1e6);
    w->stats.bytes = w->dev->bytes;
    w->stats.allocations = w->dev->allocations;
    g_mutex_unlock (&w->lock);
    halves = dp_stage_halves (w->spec.stage, h->element);
    dp_trace_event (w->spec.trace, &(DpTraceEvent) { .what = DP_TRACE_PASS, .stage = w->spec.index, .step = h->step, .element = h->element,
        .first_half = halves.first, .halves = halves.last - halves.first, .block = h->block, .iteration = h->iteration, .start_us = start,
        .end_us = end });
  }
}

/* Queues a message's pass. What fails on a GPU while the pass is computed may be noticed one pass later. Behind a pass that failed nothing is
 * computed: what passes leave for each other has a gap then, and stage 0 ends when the failed one is back. */
static void
run (DpWorker *w, DpBlock *b)
{
  w->failed |= b->header.error != 0;
  if (w->failed)
    return;

  Pass *p = &w->passes[w->queued % G_N_ELEMENTS (w->passes)];
  GError *error = NULL;

  p->header = b->header;
  w->dev->ops->mark (w->dev, p->start);
  gboolean ok = dp_stage_run (w->spec.stage, b, &error);
  w->dev->ops->mark (w->dev, p->end);
  p->whole = !cancelled (w);
  w->queued++;
  settle (w, w->dev->host_memory ? 0 : 1);
  if (ok && !dp_error_check_latch (w->dev, &error, "in block %" G_GINT64_FORMAT ", step %d", b->header.block, b->header.step))
    ok = FALSE;
  if (!ok) {
    dp_block_fail (b, error);
    w->failed = TRUE;
  }
}

static DpBlock *
exchange (DpWorker *w, DpBlock *b, gboolean wait)
{
  const DpWorkerSpec *spec = &w->spec;

  b = spec->transport->exchange (spec->transport, b, wait);
  if (b && spec->stages > 1)
    dp_trace_event (spec->trace, &(DpTraceEvent) { .what = DP_TRACE_TRANSFER, .from = (spec->index + spec->stages - 1) % spec->stages,
        .stage = spec->index, .block = b->header.block, .step = b->header.step, .element = b->header.element,
        .start_us = b->header.sent_us, .end_us = g_get_monotonic_time () });
  return b;
}

/* Whether it ends here: all but the last element of a pass leave their velocity with the last stage. */
static gboolean
ends_here (const DpWorker *w, const DpBlock *b)
{
  const DpBlockHeader *h = &b->header;

  return w->spec.index == w->spec.stages - 1 && h->element < h->elements - 1 && h->error == 0;
}

static void
serve (DpWorker *w)
{
  DpTransport *transport = w->spec.transport;
  DpBlock *b = NULL;

  while ((b = exchange (w, b, TRUE)) && !cancelled (w)) {
    run (w, b);
    if (ends_here (w, b))
      transport->give (transport, g_steal_pointer (&b));
  }
}

/* ---- stage 0 ---- */

/* A block is finished. */
static void
pace (DpWorker *w, const DpFinished *f, gint64 now)
{
  gint64 us = now - w->stats.start_us - dp_decoder_held_us (w->spec.decoder);

  g_mutex_lock (&w->lock);
  if (f->block > 0)             /* until the first one the ring filled */
    dp_recent_add (&w->stats.paces, (us - w->paced_us) / 1e6 / f->n);
  g_mutex_unlock (&w->lock);
  w->paced_us = us;
}

static gboolean
finish (DpWorker *w, const DpFinished *f, gint64 now, GError **error)
{
  pace (w, f, now);
  if (!dp_decoder_push (w->spec.decoder, w->dev, f->latents, f->n, f->block, f->conditioning)) {
    dp_error_check_device (w->dev, error, "after block %" G_GINT64_FORMAT, f->block);
    return FALSE;
  }
  gint64 end = g_get_monotonic_time ();
  g_mutex_lock (&w->lock);
  w->stats.end_us = end;
  g_mutex_unlock (&w->lock);
  dp_trace_span (w->spec.trace, DP_TRACE_STAGE, "to decoder", -1, now, end, "\"block\":%" G_GINT64_FORMAT, f->block);
  return TRUE;
}

/* Takes in a block that came back; hands it to the decoder after its last step. FALSE when all is to end. */
static gboolean
absorb (DpWorker *w, DpBlock *b, GError **error)
{
  DpFinished finished;
  gboolean done;

  if (b->header.error) {
    g_propagate_error (error, dp_block_error (b));
    return FALSE;
  }
  dp_previewer_look (w->spec.previewer, w->dev, dp_schedule_latents (w->spec.schedule, b->header.block), b);
  done = dp_schedule_absorb (w->spec.schedule, b, &finished);
  w->spec.transport->give (w->spec.transport, b);
  if (done)                     /* the decoder will wait for the device anyway */
    settle (w, 0);
  gint64 now = g_get_monotonic_time ();
  g_mutex_lock (&w->lock);
  w->stats.end_us = now;
  w->stats.passes++;
  w->stats.blocks += done;      /* before its first frame can be pulled */
  g_mutex_unlock (&w->lock);
  return !done || finish (w, &finished, now, error);
}

static gboolean
receive (DpWorker *w, GError **error)
{
  DpBlock *b = exchange (w, NULL, TRUE);

  return b && absorb (w, b, error);
}

/* Composes a message of the pass at hand and takes it through this stage. */
static gboolean
start (DpWorker *w, int element, GError **error)
{
  const DpWorkerSpec *spec = &w->spec;
  DpConditioning *c;
  DpBlock *b;

  while ((element == 0 && !dp_schedule_is_ready (spec->schedule)) || (b = spec->transport->take (spec->transport)) == NULL)
    if (!receive (w, error))
      return FALSE;
  if ((c = dp_schedule_tell (spec->schedule))) {
    dp_stage_tell (spec->stage, c);
    if (spec->stages > 1)
      spec->transport->tell (spec->transport, c);
  }
  dp_schedule_compose (spec->schedule, element, b);
  run (w, b);
  if (ends_here (w, b)) {
    spec->transport->give (spec->transport, b);
    return !cancelled (w);
  }
  b = exchange (w, b, FALSE);
  return !cancelled (w) && (b == NULL || absorb (w, b, error));
}

static gboolean
drive (DpWorker *w, GError **error)
{
  int more;

  while ((more = dp_schedule_next (w->spec.schedule, error)) > 0) {
    if (w->stats.start_us == 0) {
      g_mutex_lock (&w->lock);
      w->stats.start_us = g_get_monotonic_time ();
      g_mutex_unlock (&w->lock);
    }
    for (int element = 0; element < dp_schedule_elements (w->spec.schedule); element++)
      if (!start (w, element, error))
        return FALSE;
  }
  while (more == 0 && dp_schedule_on_the_way (w->spec.schedule) > 0)
    if (!receive (w, error))
      return FALSE;
  if (more == 0)
    dp_decoder_finish (w->spec.decoder);
  return more == 0;
}

/* ---- the thread ---- */

/* A prompt has come: this stage keeps it, and tells the next one up to the last. */
static void
told (DpConditioning *conditioning, gpointer data)
{
  DpWorker *w = data;

  dp_stage_tell (w->spec.stage, conditioning);
  if (w->spec.index < w->spec.stages - 1)
    w->spec.transport->tell (w->spec.transport, conditioning);
}

static gboolean
load (DpWorker *w, GError **error)
{
  const DpWorkerSpec *spec = &w->spec;
  DpBlockSize size;

  spec->transport->told = told;
  spec->transport->user_data = w;
  if (!dp_stage_load (spec->stage, error))
    return FALSE;
  w->dev = dp_stage_device (spec->stage);
  dp_stage_block_size (spec->stage, &size);
  for (guint i = 0; i < G_N_ELEMENTS (w->passes); i++) {
    w->passes[i].start = w->dev->ops->mark_new (w->dev);
    w->passes[i].end = w->dev->ops->mark_new (w->dev);
    if (w->passes[i].start == NULL || w->passes[i].end == NULL)
      return dp_error_no_room (w->dev, error, 0, "use fewer stages on this device", "a mark"), FALSE;
  }
  return spec->transport->open (spec->transport, w->dev, &size, error) && (spec->schedule == NULL
      || dp_schedule_open (spec->schedule, w->dev, error));
}

static gpointer
worker_thread (gpointer data)
{
  DpWorker *w = data;
  GError *error = NULL;
  gint64 began = g_get_monotonic_time ();
  DpHalves halves;

  if (load (w, &error)) {
    halves = dp_stage_halves (w->spec.stage, 0);
    dp_trace_event (w->spec.trace, &(DpTraceEvent) { .what = DP_TRACE_LOAD, .stage = w->spec.index, .first_half = halves.first,
        .halves = halves.last - halves.first, .start_us = began, .end_us = g_get_monotonic_time () });
    w->spec.loaded (w->spec.loaded_data);
    if (w->spec.schedule)
      drive (w, &error);
    else
      serve (w);
    settle (w, 0);
  }
  if (error)
    w->spec.failed (error, w->spec.failed_data);
  return NULL;
}

DpWorker *
dp_worker_new (const DpWorkerSpec *spec, GError **error)
{
  DpWorker *w = g_new0 (DpWorker, 1);
  g_autofree char *name = g_strdup_printf ("dp-stage-%d", spec->index);

  w->spec = *spec;
  g_mutex_init (&w->lock);
  w->thread = dp_thread_new (name, worker_thread, w, error);
  if (w->thread == NULL)
    dp_worker_free (g_steal_pointer (&w));
  return w;
}

void
dp_worker_join (DpWorker *w)
{
  if (w == NULL)
    return;
  g_thread_join (g_steal_pointer (&w->thread));
  if (w->dev)
    w->dev->ops->sync (w->dev);
}

void
dp_worker_free (DpWorker *w)
{
  if (w == NULL)
    return;
  for (guint i = 0; i < G_N_ELEMENTS (w->passes) && w->dev; i++) {
    w->dev->ops->mark_free (w->dev, w->passes[i].start);
    w->dev->ops->mark_free (w->dev, w->passes[i].end);
  }
  g_mutex_clear (&w->lock);
  g_free (w);
}

void
dp_worker_get_stats (DpWorker *w, DpWorkerStats *stats)
{
  g_mutex_lock (&w->lock);
  *stats = w->stats;
  g_mutex_unlock (&w->lock);
}
