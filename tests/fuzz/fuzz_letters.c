/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Letters from other ranks of a ring, as MPI brings them: to the post, and through it to an end of the transport, to rank 0's session and
 * to the hellos. The post is part of this program, so that it looks when it is told to and has no thread.
 *
 * The first byte is the rank that this is, 0 or 1 of 3. Then each letter has a Wire, and as many bytes behind it as that says.
 */
#include "engine/post.c"
#define take_letter take_hello
#define take_gone take_hello_gone
#include "engine/ranks.c"
#undef take_letter
#undef take_gone
#include "fuzz.h"
#include "engine/session.h"
#include "engine/transport_mpi.h"

#define RANKS 3
#define FRAMES 2
#define FLOATS 4                /* of a frame, both kinds */
#define STEPS 6
#define BODY (sizeof (DpBlockHeader) + sizeof (((DpBlock *) NULL)->error) + 8)  /* of a letter with a block */

typedef struct
{
  guint8 from, kind, session;   /* session: 0, 1: the one that is open, 2: a later one */
  guint8 payload[2];            /* floats */
  guint8 size[2];               /* of the body, the lower half first */
} Wire;

G_STATIC_ASSERT (sizeof (Wire) == 7);

static const uint8_t *at, *end;
static Wire wire;
static guint32 session;
static volatile double sink;    /* of what is read */
static gboolean down;           /* the end takes no blocks any more */
static int too_large;           /* blocks that have no room, and are not told to be so yet */

/* ---- MPI: the next letter is there at once, and so is its payload ---- */

static bool
probe (int tag, int *from, size_t *bytes)
{
  if ((size_t) (end - at) < sizeof wire)
    return false;
  memcpy (&wire, at, sizeof wire);
  at += sizeof wire;
  *from = wire.from % RANKS == post.place.rank ? (post.place.rank + 1) % RANKS : wire.from % RANKS;
  *bytes = sizeof (Head) + MIN (wire.size[0] + 256 * wire.size[1], end - at);
  return true;
}

static DpMpiRequest *
request (void)
{
  static char some;

  return (DpMpiRequest *) &some;
}

static DpMpiRequest *
receive (void *data, size_t bytes, int from, int tag)
{
  Head head = { wire.kind % (DP_POST_BLOCK + 1), wire.session == 0 ? 0 : wire.session == 1 ? session : session + 1, { 0, 0 } };

  if (tag == TAG_PAYLOAD) {
    memset (data, 1, bytes);
    return request ();
  }
  if (head.kind == DP_POST_GONE)        /* a rank that is gone stays so, and MPI keeps its buffers */
    head.kind = DP_POST_PING;
  for (int i = 0; i < 2; i++)
    head.payload[i] = sizeof (float) * wire.payload[i];
  too_large += head.kind == DP_POST_BLOCK && head.session == session && from == (post.place.rank + RANKS - 1) % RANKS
      && bytes >= sizeof head + BODY && !down && MAX (wire.payload[0], wire.payload[1]) > FRAMES * FLOATS;
  memcpy (data, &head, sizeof head);
  memcpy ((Head *) data + 1, at, bytes - sizeof head);
  at += bytes - sizeof head;
  return request ();
}

static DpMpiRequest *
send (const void *data, size_t bytes, int to, int tag)
{
  for (size_t i = 0; i < bytes; i++)
    sink = ((const guint8 *) data)[i];
  return request ();
}

static int
test (DpMpiRequest *r)
{
  return 1;
}

static const DpMpi mpi = { .probe = probe, .send = send, .receive = receive, .test = test };

/* ---- what letters become ---- */

static void
check_failed (GError *error, gpointer data)
{
  if (strstr (error->message, "is larger than any"))
    too_large--;
  fuzz_check_error (FALSE, error);
  g_error_free (error);
}

static void
ignore (gpointer data)
{
}

static void
ignore_letter (const DpLetter *letter, gpointer data)
{
}

static void
ignore_gone (int rank, const char *why, gpointer data)
{
}

static void
check_prompt (DpConditioning *c, gpointer data)
{
  for (int i = 0; i < 2; i++)
    for (gsize k = 0; k < (gsize) c->n[i] * c->dim; k++)
      sink = c->embeds[i][k];
  g_assert_true (g_utf8_validate (c->prompt, -1, NULL));
}

/* What a stage takes for granted of a block. */
static void
check_block (const DpBlock *b)
{
  if (b->header.error) {
    g_autoptr (GError) error = dp_block_error (b);

    fuzz_check_error (FALSE, error);
    g_assert_true (error->code >= 0 && error->code <= DP_ERROR_FAILED);
    return;
  }
  const DpBlockHeader *h = &b->header;
  g_assert_cmpint (h->context + h->own, <=, FRAMES);
  g_assert_true (h->step >= 0 && h->step < STEPS && h->first_step >= 0 && h->first_step < STEPS && h->previous_step < STEPS);
  g_assert_true (h->element < h->elements && h->elements <= 2 && h->next_element <= h->element && h->previous_element <= h->element);
  g_assert_true (h->given <= h->own && h->to_cache <= h->own && h->to_keep <= h->own && h->next_cached <= FRAMES && h->previous_cached <= FRAMES);
}

static void
check_hellos (void)
{
  for (int i = 0; i < RANKS; i++) {
    g_autoptr (GError) error = NULL;

    if (!all.said[i])
      continue;
    gboolean ok = check_hello (i, &error);
    fuzz_check_error (ok, error);
    g_free (dp_rank_name (i, &all.hellos[i].rank));
    const DpRank *r = &all.hellos[i].rank;
    gsize length = strlen (r->info.name) + strlen (r->info.description) + strlen (r->info.libraries);
    g_assert_true (!ok || (length < sizeof *r && r->threads > 0 && r->info.latents_at_once > 0));
    all.said[i] = FALSE;
  }
}

/* Takes everything that came, and passes it on as a stage would. */
static void
pass_on (DpTransport *t)
{
  turn ();
  for (DpBlock *b; (b = t->exchange (t, NULL, FALSE));) {
    check_block (b);
    t->exchange (t, b, FALSE);
    turn ();
  }
}

static DpTransport *
open_end (DpTransport *t)
{
  static DpDevice *dev;
  char message[256];

  dev = dev ? dev : dp_device_open ("ref", 1, message, sizeof message);
  t->told = check_prompt;
  g_assert_true (t->open (t, dev, &(DpBlockSize) { FRAMES, FLOATS, FLOATS, STEPS, 1 }, NULL));
  return t;
}

/* One for all inputs: it reads the model's files. */
static DpTransport *
rank_0 (void)
{
  static DpTransport *t;
  static const DpHalves cuts[RANKS][2] = { { { 0, 2 }, { 0, 2 } }, { { 2, 4 }, { 2, 4 } }, { { 4, 20 }, { 4, 20 } } };

  if (t == NULL) {
    g_autoptr (GError) error = NULL;
    DpPlan *plan = dp_plan_for_rank (&(DpSettings) { .model = FUZZ_MODEL, .devices = "cpu", .threads = 1,
        .num_frames = -1 }, RANKS, cuts, &error);
    g_assert_no_error (error);
    fuzz_put ("trace.json", "", 0);
    g_autofree char *path = g_build_filename (fuzz_dir (), "trace.json", NULL);
    DpTrace *trace = dp_trace_new (path, RANKS, 1 << 20, &error);
    g_assert_no_error (error);
    DpSession *s = dp_session_new (&(DpSessionSpec) { .plan = plan, .trace = trace, .loaded = ignore, .failed = check_failed }, &error);
    g_assert_no_error (error);
    t = open_end (dp_session_end (s));
    dp_transport_mpi_listen (t);
  }
  return t;
}

int
LLVMFuzzerTestOneInput (const uint8_t *data, size_t size)
{
  static const DpPostListener hellos = { .letter = take_hello, .gone = take_hello_gone };
  DpTransport *t;

  if (size == 0)
    return 0;
  if (post.mpi == NULL) {
    post.mpi = &mpi;
    post.listeners = g_array_new (FALSE, FALSE, sizeof (Listener));
    post.joining = g_array_new (FALSE, FALSE, sizeof (Listener));
    post.sending = g_ptr_array_new ();
    post.place.ranks = RANKS;
    dp_post_listen (0, &hellos, NULL);
    session = 1;                /* rank 0's */
  }
  post.place.rank = data[0] & 1;
  post.looked = post.pinged = g_get_monotonic_time ();
  for (int i = 0; i < RANKS; i++)
    post.heard[i] = post.looked;
  at = data + 1;
  end = data + size;
  down = FALSE;
  if (post.place.rank == 0) {
    session = 1;
    pass_on (rank_0 ());
  } else {
    static guint32 last = 1;

    session = last += 2;
    t = open_end (dp_transport_mpi_new (&(DpTransportMpiSpec) { .rank = 1, .ranks = RANKS, .session = session, .name = "this",
        .letter = ignore_letter, .gone = ignore_gone, .failed = check_failed }));
    dp_transport_mpi_listen (t);
    pass_on (t);
    t->shut_down (t);
    down = TRUE;
    turn ();
    t->close (t);
    t->free (t);
    dp_post_unlisten (session + 1);
  }
  turn ();
  g_assert_cmpint (too_large, ==, 0);
  check_hellos ();
  post.bye = FALSE;
  return 0;
}
