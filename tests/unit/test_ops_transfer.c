/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * fill, marks and transfers: on every device, and between all pairs of them. Two GPUs are also taken through host memory, as where
 * they do not reach each other.
 *
 * Order is tested with a "long op": enough work in front of the one that counts that a copy which does not wait for it is too early.
 */
#include "ops_harness.h"

#include <pthread.h>
#include <time.h>

void test_transfers (void);

#define GUARD 64
#define POISON 0xa5

/* -- memory of a device between guard zones -- */

typedef struct
{
  DpDevice *dev;
  char *base;
  void *data;
  size_t bytes;
} Zone;

static Zone
zone_new (DpDevice *dev, size_t bytes)
{
  Zone z = { .dev = dev, .base = dev->ops->alloc (dev, bytes + 2 * GUARD), .bytes = bytes };

  if (z.base == NULL)
    abort ();
  z.data = z.base + GUARD;
  dev->ops->fill (dev, z.base, POISON, bytes + 2 * GUARD);
  return z;
}

static void
zone_free (Zone *z)
{
  z->dev->ops->free (z->dev, z->base);
}

/* Whether it holds `expected`, or `byte` everywhere, and nothing was written around it. */
static bool
zone_holds (const Zone *z, const char *expected, int byte)
{
  unsigned char *all = malloc (z->bytes + 2 * GUARD);
  bool good = true;

  z->dev->ops->download (z->dev, all, z->base, z->bytes + 2 * GUARD);
  for (size_t i = 0; i < GUARD; i++)
    good = good && all[i] == POISON && all[GUARD + z->bytes + i] == POISON;
  if (expected)
    good = good && memcmp (all + GUARD, expected, z->bytes) == 0;
  else
    for (size_t i = 0; i < z->bytes; i++)
      good = good && all[GUARD + i] == byte;
  free (all);
  return good;
}

static char *
numbers (size_t n, unsigned seed)
{
  char *bytes = malloc (n + 1);

  for (size_t i = 0; i < n; i++)
    bytes[i] = (char) ((i * 2654435761u + seed * 40503u) >> 13);
  return bytes;
}

static void
check_fine (DpDevice *dev, const char *what)
{
  char error[256] = "";

  check (dp_device_check (dev, error, sizeof error), "%s: %s: %s", what, dev->name, error);
}

/* -- fill -- */

static void
check_fill (DpDevice *dev)
{
  static const size_t sizes[] = { 0, 1, 3, 63, 4097, 100003 };

  for (size_t i = 0; i < LENGTH (sizes); i++)
    for (int byte = 0; byte < 256; byte += 77) {
      Zone z = zone_new (dev, sizes[i]);

      dev->ops->fill (dev, z.data, byte, sizes[i]);
      check (zone_holds (&z, NULL, byte), "%s: fill of %zu bytes with %d", dev->name, sizes[i], byte);
      zone_free (&z);
    }
  check_fine (dev, "fill");
}

/* -- a long op: 5 ms or so on a GPU; what a host device does is done when it returns -- */

typedef struct
{
  DpDevice *dev;
  size_t n;
  int times;
  float *x;
} Long;

static Long
long_new (DpDevice *dev)
{
  Long l = { .dev = dev, .n = dev->host_memory ? 1000 : 16 << 20, .times = dev->host_memory ? 1 : 100 };

  l.x = dev->ops->alloc (dev, l.n * sizeof (float));
  if (l.x == NULL)
    abort ();
  dev->ops->fill (dev, l.x, 0, l.n * sizeof (float));
  return l;
}

static void
long_run (const Long *l)
{
  for (int i = 0; i < l->times; i++)
    l->dev->ops->combine (l->dev, l->n, 1, (const float *const[]) { l->x }, (float[]) { 1 }, l->x);
}

static void
long_free (Long *l)
{
  l->dev->ops->free (l->dev, l->x);
}

/* -- marks -- */

static int64_t
now (void)
{
  struct timespec ts;

  clock_gettime (CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * INT64_C (1000000) + ts.tv_nsec / 1000;
}

/* Times lie between the call that queued the work and the return of the wait, in the order of the work, also of marks read later than
 * the clocks of device and host are compared again. */
static void
check_marks (DpDevice *dev)
{
  enum { SLACK = 100 };         /* microseconds */
  const DpOps *ops = dev->ops;
  DpMark *marks[3], *never = ops->mark_new (dev);
  Long l = long_new (dev);
  int64_t before, after, times[3];

  check (never && ops->mark_time (dev, never) == 0, "%s: a new mark has a time", dev->name);
  ops->mark_wait (dev, never);
  ops->follow (dev, never);
  for (int i = 0; i < 3; i++)
    marks[i] = ops->mark_new (dev);
  for (int round = 0; round < 3; round++) {
    before = now ();
    for (int i = 0; i < 3; i++) {
      ops->mark (dev, marks[i]);
      long_run (&l);
    }
    ops->mark_wait (dev, marks[2]);
    after = now ();
    if (round == 1 && !dev->host_memory)
      nanosleep (&(struct timespec) { 1, 100000000 }, NULL);
    for (int i = 0; i < 3; i++)
      times[i] = ops->mark_time (dev, marks[i]);
    check (before - SLACK <= times[0] && times[0] <= times[1] && times[1] <= times[2] && times[2] <= after + SLACK,
        "%s: marks at %d, %d, %d us in a span of %d us", dev->name, (int) (times[0] - before), (int) (times[1] - before),
        (int) (times[2] - before), (int) (after - before));
  }
  check_fine (dev, "marks");
  for (int i = 0; i < 3; i++)
    ops->mark_free (dev, marks[i]);
  ops->mark_free (dev, never);
  ops->mark_free (dev, NULL);
  long_free (&l);
}

/* -- transfers -- */

static const char *
pair (const DpDevice *from, const DpDevice *to)
{
  static char name[96];

  snprintf (name, sizeof name, "%s -> %s%s", from->name, to->name, from->no_peer ? " through the host" : "");
  return name;
}

static void
check_sizes (DpDevice *from, DpDevice *to)
{
  static const size_t sizes[] = { 0, 1, 77, 65537, (2 << 20) - 1, (2 << 20) + 3, (21 << 20) + 5 };
  DpMark *done = dp_device_link_mark_new (from, to);

  for (size_t i = 0; i < LENGTH (sizes) - (from->host_memory && to->host_memory); i++) {
    size_t n = sizes[i];
    char *bytes = numbers (n, i);
    Zone src = zone_new (from, n), dst = zone_new (to, n);

    from->ops->upload (from, src.data, bytes, n);
    from->ops->sync (from);
    to->ops->sync (to);
    from->ops->transfer (from, &(DpTransferArgs) { .from = from, .src = src.data, .to = to, .dst = dst.data, .bytes = n, .done = done });
    to->ops->follow (to, done);
    check (zone_holds (&dst, bytes, 0), "%s: %zu bytes arrive wrong", pair (from, to), n);
    check (from->ops->mark_time (from, done) > 0, "%s: no time of %zu bytes", pair (from, to), n);
    zone_free (&src);
    zone_free (&dst);
    free (bytes);
  }
  check_fine (from, pair (from, to));
  check_fine (to, pair (from, to));
  from->ops->mark_free (from, done);
}

/* The copy waits for src, which a long op is in front of, and for dst, which is read behind a long op; what follows it waits for it. */
static void
check_order (DpDevice *from, DpDevice *to)
{
  const size_t n = (3 << 20) + 1;
  Zone src = zone_new (from, n), dst = zone_new (to, n), kept = zone_new (to, n), seen = zone_new (to, n);
  char *first = numbers (n, 1), *second = numbers (n, 2);
  Zone second_from = zone_new (from, n);
  DpMark *ready = from->ops->mark_new (from), *freed = to->ops->mark_new (to), *done = dp_device_link_mark_new (from, to);
  Long busy = long_new (from), reading = long_new (to);

  to->ops->upload (to, dst.data, first, n);
  from->ops->upload (from, second_from.data, second, n);
  from->ops->sync (from);
  to->ops->sync (to);

  long_run (&reading);
  to->ops->copy (to, kept.data, dst.data, n);
  to->ops->mark (to, freed);
  long_run (&busy);
  from->ops->copy (from, src.data, second_from.data, n);
  from->ops->mark (from, ready);
  from->ops->transfer (from, &(DpTransferArgs) { .from = from, .src = src.data, .to = to, .dst = dst.data, .bytes = n,
      .after = { ready, freed }, .done = done });
  to->ops->follow (to, done);
  to->ops->copy (to, seen.data, dst.data, n);
  check (zone_holds (&kept, first, 0), "%s: dst was overwritten before it was free", pair (from, to));
  check (zone_holds (&seen, second, 0), "%s: src was read before it was ready, or dst before it was there", pair (from, to));
  to->ops->mark_wait (to, done);
  check (from->ops->mark_time (from, ready) <= to->ops->mark_time (to, done) + 100
      && to->ops->mark_time (to, freed) <= from->ops->mark_time (from, done) + 100, "%s: done before it began", pair (from, to));

  /* cancelled: nothing arrives, and no wait lasts for ever */
  static const int yes = 1;
  from->ops->sync (from);
  from->cancel = &yes;
  from->ops->transfer (from, &(DpTransferArgs) { .from = from, .src = kept.data, .to = to, .dst = dst.data, .bytes = n, .done = done });
  to->ops->mark_wait (to, done);
  from->cancel = NULL;
  check (zone_holds (&dst, second, 0), "%s: a cancelled transfer arrives", pair (from, to));
  check_fine (from, pair (from, to));
  check_fine (to, pair (from, to));

  long_free (&busy);
  long_free (&reading);
  zone_free (&src);
  zone_free (&second_from);
  zone_free (&dst);
  zone_free (&kept);
  zone_free (&seen);
  free (first);
  free (second);
  from->ops->mark_free (from, ready);
  to->ops->mark_free (to, freed);
  from->ops->mark_free (to, done);
}

/* -- two threads, as stages are: a sender with two buffers, a receiver with two -- */

enum { ROUNDS = 24, SLOTS = 2 };

typedef struct
{
  DpDevice *from, *to;
  size_t n;                     /* floats */
  float *dst[SLOTS];            /* on `to` */
  DpMark *freed[SLOTS], *done[SLOTS];

  pthread_mutex_t lock;
  pthread_cond_t changed;
  /* -- protected by lock */
  int sent, received;
} Link;

static void *
send_all (void *arg)
{
  Link *l = arg;
  DpDevice *dev = l->from;
  size_t bytes = l->n * sizeof (float);
  float *src[SLOTS], *one = dev->ops->alloc (dev, bytes);
  float *host = malloc (bytes);
  DpMark *ready = dev->ops->mark_new (dev);

  for (size_t i = 0; i < l->n; i++)
    host[i] = 1 + i % 5;
  dev->ops->upload (dev, one, host, bytes);
  free (host);
  for (int i = 0; i < SLOTS; i++)
    src[i] = dev->ops->alloc (dev, bytes);
  for (int i = 0; i < ROUNDS; i++) {
    int slot = i % SLOTS;

    pthread_mutex_lock (&l->lock);
    while (i - l->received >= SLOTS)
      pthread_cond_wait (&l->changed, &l->lock);
    pthread_mutex_unlock (&l->lock);
    if (i >= SLOTS)
      dev->ops->follow (dev, l->done[slot]);
    dev->ops->combine (dev, l->n, 1, (const float *const[]) { one }, (float[]) { i + 1 }, src[slot]);
    dev->ops->mark (dev, ready);
    dev->ops->transfer (dev, &(DpTransferArgs) { .from = dev, .src = src[slot], .to = l->to, .dst = l->dst[slot], .bytes = bytes,
        .after = { ready, l->freed[slot] }, .done = l->done[slot] });
    pthread_mutex_lock (&l->lock);
    l->sent = i + 1;
    pthread_cond_broadcast (&l->changed);
    pthread_mutex_unlock (&l->lock);
  }
  for (int i = 0; i < SLOTS; i++) {
    dev->ops->mark_wait (dev, l->done[i]);
    dev->ops->free (dev, src[i]);
  }
  dev->ops->sync (dev);
  dev->ops->free (dev, one);
  dev->ops->mark_free (dev, ready);
  return NULL;
}

/* The sum of all rounds tells whether each came once and whole. */
static void
check_threads (DpDevice *from, DpDevice *to)
{
  Link l = { .from = from, .to = to, .n = from->host_memory && to->host_memory ? 5001 : 1000003,
    .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };
  size_t bytes = l.n * sizeof (float), wrong = 0;
  float *sum = to->ops->alloc (to, bytes), *host = malloc (bytes);
  pthread_t thread;

  to->ops->fill (to, sum, 0, bytes);
  for (int i = 0; i < SLOTS; i++) {
    l.dst[i] = to->ops->alloc (to, bytes);
    l.freed[i] = to->ops->mark_new (to);
    l.done[i] = dp_device_link_mark_new (from, to);
  }
  pthread_create (&thread, NULL, send_all, &l);
  for (int i = 0; i < ROUNDS; i++) {
    int slot = i % SLOTS;

    pthread_mutex_lock (&l.lock);
    while (l.sent <= i)
      pthread_cond_wait (&l.changed, &l.lock);
    pthread_mutex_unlock (&l.lock);
    to->ops->follow (to, l.done[slot]);
    to->ops->combine (to, l.n, 2, (const float *const[]) { sum, l.dst[slot] }, (float[]) { 1, 1 }, sum);
    to->ops->mark (to, l.freed[slot]);
    pthread_mutex_lock (&l.lock);
    l.received = i + 1;
    pthread_cond_broadcast (&l.changed);
    pthread_mutex_unlock (&l.lock);
  }
  pthread_join (thread, NULL);
  to->ops->download (to, host, sum, bytes);
  for (size_t i = 0; i < l.n; i++)
    wrong += host[i] != (float) ((1 + i % 5) * ROUNDS * (ROUNDS + 1) / 2);
  check (wrong == 0, "%s: %zu of %zu numbers wrong between two threads", pair (from, to), wrong, l.n);
  check_fine (from, pair (from, to));
  check_fine (to, pair (from, to));
  for (int i = 0; i < SLOTS; i++) {
    to->ops->free (to, l.dst[i]);
    to->ops->mark_free (to, l.freed[i]);
    to->ops->mark_free (to, l.done[i]);
  }
  to->ops->free (to, sum);
  free (host);
}

static void
check_pair (DpDevice *from, DpDevice *to)
{
  check_sizes (from, to);
  check_order (from, to);
  if (from != to)
    check_threads (from, to);
}

/* A failure on the sender stops its transfers until it is taken; reading the latch waits for nothing. */
static void
check_latch (DpDevice *from, DpDevice *to)
{
  Zone src = zone_new (from, 100), dst = zone_new (to, 100);
  DpMark *done = dp_device_link_mark_new (from, to);
  DpTransferArgs args = { .from = from, .src = src.data, .to = to, .dst = dst.data, .bytes = 100, .done = done };
  char error[256] = "";

  from->ops->fill (from, src.data, 1, 100);
  from->ops->sync (from);
  check (dp_device_fail (from, "on purpose") && !dp_device_fail (from, "too late") && dp_device_failed (from), "%s does not latch",
      from->name);
  from->ops->transfer (from, &args);
  to->ops->mark_wait (to, done);
  check (!dp_device_take_error (from, error, sizeof error) && strcmp (error, "on purpose") == 0 && !dp_device_failed (from)
      && dp_device_take_error (from, error, sizeof error), "%s: took \"%s\"", from->name, error);
  check (zone_holds (&dst, NULL, POISON), "%s: copied after a failure", pair (from, to));
  from->ops->transfer (from, &args);
  to->ops->follow (to, done);
  check (zone_holds (&dst, NULL, 1), "%s: not copied once the failure was taken", pair (from, to));
  from->ops->mark_free (from, done);
  zone_free (&src);
  zone_free (&dst);
}

/* The second GPU, which the other tests do not use. */
static DpDevice *
open_second_gpu (void)
{
  char error[256];
  DpDeviceInfo info;
  DpDevice *gpu = harness_gpu (), *dev;

  if (gpu == NULL)
    return NULL;
  if (!dp_device_info (gpu->name, &info, error, sizeof error) || info.gpus < 2) {
    printf ("skipped: transfers between two GPUs, there is one here\n");
    return NULL;
  }
  dev = dp_device_open (strcmp (gpu->name, "cuda:1") == 0 ? "cuda:0" : "cuda:1", 0, error, sizeof error);
  check (dev != NULL, "the second GPU: %s", error);
  return dev;
}

void
test_transfers (void)
{
  DpDevice *devices[MAX_DEVICES + 1], *second = open_second_gpu ();
  int n = harness_n_devices;

  memcpy (devices, harness_devices, sizeof harness_devices);
  if (second)
    devices[n++] = second;
  for (int i = 0; i < n; i++) {
    check_fill (devices[i]);
    check_marks (devices[i]);
    for (int j = 0; j < n; j++) {
      check_pair (devices[i], devices[j]);
      check_latch (devices[i], devices[j]);
      if (devices[i]->host_memory || devices[j]->host_memory)
        continue;
      devices[i]->no_peer = true;
      check_pair (devices[i], devices[j]);
      devices[i]->no_peer = false;
    }
  }
  dp_device_close (second);
}
