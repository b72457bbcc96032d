/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "ranks.h"
#include "dualparal.h"

#include <string.h>

#define PROTOCOL 3              /* a change of what ranks send each other is a new number */
#define START_SECONDS 60
#define HELLO_US (60 * G_USEC_PER_SEC)

typedef struct
{
  char magic[8];
  guint32 protocol;
  char version[32];
  DpRank rank;
  char broken[512];             /* why the device cannot be used; "": it can */
} Hello;

static const char magic[8] = "dualpar";

static struct
{
  /* -- protected by gathering -- */
  GMutex gathering;
  gboolean listening;

  /* -- protected by lock -- */
  GMutex lock;
  GCond changed;
  Hello hellos[DP_MAX_STAGES];
  gboolean said[DP_MAX_STAGES];
  DpRank ranks[DP_MAX_STAGES];  /* constant once all have said hello */
} all;

char *
dp_rank_name (int rank, const DpRank *r)
{
  g_autofree char *host = dp_quote (r->host, DP_QUOTE_MAX), *device = dp_quote (r->device, DP_QUOTE_MAX);

  return g_strdup_printf ("stage %d (rank %d on %s, %s)", rank, rank, host, device);
}

void
dp_ranks_host_name (char *name, gsize size)
{
  g_strlcpy (name, g_get_host_name (), size);
}

void
dp_ranks_set_gone (GError **error, const char *name, const char *why)
{
  g_set_error (error, DP_ERROR, DP_ERROR_DEVICE, "%s is gone: %s; see its output", name, why);
}

void
dp_ranks_say_hello (const DpRank *self, const char *broken)
{
  Hello hello = { .protocol = PROTOCOL, .version = DP_VERSION, .rank = *self };

  memcpy (hello.magic, magic, sizeof magic);
  g_strlcpy (hello.broken, broken ? broken : "", sizeof hello.broken);
  dp_post_send (0, DP_POST_HELLO, 0, &hello, sizeof hello);
}

/* ---- rank 0, on the post's thread ---- */

static void
take_letter (const DpLetter *letter, gpointer data)
{
  if (letter->kind != DP_POST_HELLO)
    return;
  g_mutex_lock (&all.lock);
  Hello *h = &all.hellos[letter->from];
  memset (h, 0, sizeof *h);     /* of another version it may be shorter */
  memcpy (h, letter->body, MIN (letter->bytes, sizeof *h));
  h->version[sizeof h->version - 1] = h->broken[sizeof h->broken - 1] = 0;
  h->rank.host[sizeof h->rank.host - 1] = h->rank.device[sizeof h->rank.device - 1] = 0;
  DpDeviceInfo *info = &h->rank.info;
  info->name[sizeof info->name - 1] = info->description[sizeof info->description - 1] = info->libraries[sizeof info->libraries - 1] = 0;
  all.said[letter->from] = TRUE;
  g_cond_broadcast (&all.changed);
  g_mutex_unlock (&all.lock);
}

static void
take_gone (int rank, const char *why, gpointer data)
{
  g_mutex_lock (&all.lock);
  g_cond_broadcast (&all.changed);
  g_mutex_unlock (&all.lock);
}

/* The numbers that a plan counts with. */
static gboolean
is_possible (const DpRank *r)
{
  const guint8 *const bools[] = { (const guint8 *) &r->info.fast_bf16, (const guint8 *) &r->info.fp8,
    (const guint8 *) &r->info.host_memory, (const guint8 *) &r->info.broken };

  for (gsize i = 0; i < G_N_ELEMENTS (bools); i++)
    if (*bools[i] > 1)
      return FALSE;
  return r->threads > 0 && r->info.latents_at_once > 0 && r->info.speed >= 0 && r->info.speed < G_MAXDOUBLE;
}

static gboolean
check_hello (int rank, GError **error)
{
  const Hello *h = &all.hellos[rank];
  g_autofree char *name = NULL;

  if (memcmp (h->magic, magic, sizeof magic) != 0 || h->protocol != PROTOCOL || strcmp (h->version, DP_VERSION) != 0) {
    dp_error_set (error, DP_ERROR_SETTINGS, "ranks=mpi: rank %d runs version \"%s\" (protocol %u), and rank 0 is %s (protocol %d); "
        "install the same version on every host", rank, h->version, h->protocol, DP_VERSION, PROTOCOL);
    return FALSE;
  }
  name = dp_rank_name (rank, &h->rank);
  if (h->broken[0])
    dp_error_set (error, DP_ERROR_DEVICE, "%s: %.512s", name, h->broken);
  else if (!is_possible (&h->rank))
    dp_error_set (error, DP_ERROR_DEVICE, "%s: what it says of its device cannot be; install the same build on every host", name);
  else
    return TRUE;
  return FALSE;
}

/* Under lock. 1: it is there, 0: not yet, -1: with an error. */
static int
look_at (int rank, GError **error)
{
  g_autofree char *why = dp_post_why_gone (rank);

  if (why) {
    g_autofree char *name = all.said[rank] ? dp_rank_name (rank, &all.hellos[rank].rank) : g_strdup_printf ("rank %d", rank);
    dp_ranks_set_gone (error, name, why);
    g_prefix_error (error, "ranks=mpi: ");
    return -1;
  }
  return !all.said[rank] ? 0 : check_hello (rank, error) ? 1 : -1;
}

static gboolean
wait_for_all (int ranks, GError **error)
{
  gint64 until = g_get_monotonic_time () + HELLO_US;

  for (int rank = 1; rank < ranks;) {
    int status = look_at (rank, error);

    if (status < 0)
      return FALSE;
    rank += status;
    if (status == 0 && !g_cond_wait_until (&all.changed, &all.lock, until)) {
      g_set_error (error, DP_ERROR, DP_ERROR_SETTINGS, "ranks=mpi: rank %d did not say hello within a minute; start every rank but the "
          "first with `dualparal worker`", rank);
      return FALSE;
    }
  }
  for (int rank = 1; rank < ranks; rank++)
    all.ranks[rank] = all.hellos[rank].rank;
  return TRUE;
}

const DpRank *
dp_ranks_gather (DpPostPlace *place, GError **error)
{
  static const DpPostListener listener = { .letter = take_letter, .gone = take_gone };
  gboolean ok = FALSE;

  g_mutex_lock (&all.gathering);
  if (!dp_post_open (place, START_SECONDS, error))
    goto out;
  if (place->ranks == 1) {
    g_set_error (error, DP_ERROR, DP_ERROR_SETTINGS, "ranks=mpi: this process is the only rank; start it with mpirun, with a `dualparal "
        "worker` for every further rank: mpirun -n 1 PROGRAM : -n 2 dualparal worker");
    goto out;
  }
  if (place->rank != 0) {
    g_set_error (error, DP_ERROR, DP_ERROR_SETTINGS, "ranks=mpi: this process is rank %d, and only rank 0 makes a video; start the other "
        "ranks with `dualparal worker`", place->rank);
    goto out;
  }
  if (!all.listening)
    dp_post_listen (0, &listener, NULL);
  all.listening = TRUE;
  g_mutex_lock (&all.lock);
  ok = wait_for_all (place->ranks, error);
  g_mutex_unlock (&all.lock);

out:
  g_mutex_unlock (&all.gathering);
  return ok ? all.ranks : NULL;
}
