/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A ring of threads that pass random bytes: what arrives is what was sent, in order, whatever the
 * number of stages, and prompts come before the blocks that name them.
 */
#include "engine/transport.h"
#include "tests/unit/devices.h"

#include <string.h>

#define FRAMES 3
#define LATENTS 5               /* floats a frame; odd */
#define TOKENS 1031
#define MESSAGES 200

typedef struct
{
  DpTransport *end;
  const char *device;
  DpDevice *dev;
  gsize bytes;                  /* that it held when it was opened */
  int index, stages;
  guint seed;
  GArray *told;                 /* of guint: ids, in order */
  int passed;
} Stage;

static void
told (DpConditioning *c, gpointer data)
{
  Stage *s = data;

  g_array_append_val (s->told, c->id);
  if (s->index < s->stages - 1)
    s->end->tell (s->end, c);
}

static DpConditioning *
conditioning_new (guint id)
{
  DpConditioning *c = g_new0 (DpConditioning, 1);

  c->refs = 1;
  c->id = id;
  return c;
}

static gsize
floats (const DpBlock *b, gsize each)
{
  return (gsize) (b->header.context + b->header.own) * each;
}

/* Each stage adds its number to every token and latent: so each must have seen all of them. */
static void
add (DpDevice *dev, float *at, gsize n, float value)
{
  g_autofree float *host = g_new (float, n);

  dev->ops->download (dev, host, at, sizeof (float) * n);
  for (gsize i = 0; i < n; i++)
    host[i] += value;
  dev->ops->upload (dev, at, host, sizeof (float) * n);
}

static void
open_end (Stage *s, DpDevice *dev)
{
  GError *error = NULL;

  s->dev = dev;
  s->bytes = dev->bytes;
  s->end->told = told;
  s->end->user_data = s;
  g_assert_true (s->end->open (s->end, dev, &(DpBlockSize) { FRAMES, LATENTS, TOKENS }, &error));
  g_assert_no_error (error);
}

static gpointer
relay (gpointer data)
{
  Stage *s = data;
  DpDevice *dev = open_device (s->device);
  DpBlock *b = NULL;

  open_end (s, dev);
  while ((b = s->end->exchange (s->end, b, TRUE))) {
    g_assert_cmpint (b->header.block, ==, s->passed);
    g_assert_cmpuint (g_array_index (s->told, guint, s->told->len - 1), >=, b->header.prompt);
    s->passed++;
    if (b->header.error)        /* passed on as it is */
      continue;
    add (dev, b->latents, floats (b, LATENTS), s->index);
    add (dev, b->tokens, floats (b, TOKENS), s->index);
  }
  dev->ops->sync (dev);
  return NULL;
}

static void
fill (DpDevice *dev, DpBlock *b, GRand *rand, float *latents)
{
  g_autofree float *tokens = g_new0 (float, FRAMES * TOKENS);

  for (int i = 0; i < FRAMES * LATENTS; i++)
    latents[i] = g_rand_int_range (rand, -1000, 1000);
  for (int i = 0; i < FRAMES * TOKENS; i++)
    tokens[i] = latents[i % LATENTS];
  dev->ops->upload (dev, b->latents, latents, sizeof (float) * floats (b, LATENTS));
  dev->ops->upload (dev, b->tokens, tokens, sizeof (float) * floats (b, TOKENS));
}

static void
check_latents (DpDevice *dev, const DpBlock *b, const float *sent, int stages)
{
  float host[FRAMES * LATENTS];
  gsize n = floats (b, LATENTS);

  dev->ops->download (dev, host, b->latents, sizeof (float) * n);
  for (gsize i = 0; i < n; i++)
    g_assert_cmpfloat (host[i], ==, sent[i] + stages * (stages - 1) / 2);
}

static void
go_around (const char *const *devices, int stages)
{
  DpTransport *ends[DP_MAX_STAGES];
  Stage s[DP_MAX_STAGES];
  GThread *threads[DP_MAX_STAGES];
  float sent[MESSAGES][FRAMES * LATENTS];
  DpDevice *dev = open_device (devices[0]);
  g_autoptr (GRand) rand = g_rand_new_with_seed (stages);
  int out = 0, in = 0, most = stages + 1;
  DpBlock *b;

  dp_transport_local_new (stages, ends);
  for (int i = 0; i < stages; i++)
    s[i] = (Stage) { .end = ends[i], .device = devices[i], .index = i, .stages = stages,
      .told = g_array_new (FALSE, FALSE, sizeof (guint)) };
  for (int i = 1; i < stages; i++)
    threads[i] = g_thread_new ("stage", relay, &s[i]);
  open_end (&s[0], dev);

  while (in < MESSAGES) {
    if (out < MESSAGES && out - in < most && (b = ends[0]->take (ends[0]))) {
      if (out % 7 == 0 && stages > 1) {
        DpConditioning *c = conditioning_new (out / 7);

        ends[0]->tell (ends[0], c);
        dp_conditioning_unref (c);
      }
      b->header = (DpBlockHeader) { .block = out, .context = out % FRAMES, .own = 1, .prompt = out / 7 };
      fill (dev, b, rand, sent[out]);
      if (out % 50 == 49)
        dp_block_fail (b, g_error_new (DP_ERROR, DP_ERROR_NO_MEMORY, "stage %d of %d is full", 0, stages));
      out++;
      b = ends[0]->exchange (ends[0], b, FALSE);
    } else
      b = ends[0]->exchange (ends[0], NULL, TRUE);
    if (b == NULL)
      continue;
    g_assert_cmpint (b->header.block, ==, in);
    g_assert_cmpint (b->header.error != 0, ==, in % 50 == 49);
    if (b->header.error) {
      g_autoptr (GError) error = dp_block_error (b);

      g_assert_error (error, DP_ERROR, DP_ERROR_NO_MEMORY);
      g_assert_cmpstr (error->message, ==, b->error);
    } else
      check_latents (dev, b, sent[in], stages);
    ends[0]->give (ends[0], b);
    in++;
  }
  ends[0]->shut_down (ends[0]);
  g_assert_null (ends[0]->exchange (ends[0], NULL, TRUE));
  dev->ops->sync (dev);
  for (int i = 1; i < stages; i++)
    g_thread_join (threads[i]);
  for (int i = 0; i < stages; i++)
    ends[i]->close (ends[i]);
  for (int i = 0; i < stages; i++) {
    ends[i]->free (ends[i]);
    g_assert_cmpuint (s[i].dev->bytes, ==, s[i].bytes);
    dp_device_close (s[i].dev);
    if (i > 0) {
      g_assert_cmpint (s[i].passed, ==, MESSAGES);
      g_assert_cmpuint (s[i].told->len, ==, (MESSAGES + 6) / 7);
    }
    g_array_unref (s[i].told);
  }
}

static void
test_around (void)
{
  const char *devices[8];

  for (int stages = 1; stages <= 8; stages++) {
    for (int i = 0; i < stages; i++)
      devices[i] = test_device (i);
    go_around (devices, stages);
  }
}

/* Ends that wait are woken by shut_down(): one for a block, one for room at the next end. */
static gpointer
wait_for_block (gpointer data)
{
  DpTransport *end = data;

  return end->exchange (end, NULL, TRUE);
}

static gpointer
wait_for_room (gpointer data)
{
  DpTransport *end = data;

  for (int i = 0; i < 2; i++)
    end->exchange (end, end->take (end), FALSE);
  return end->exchange (end, end->take (end), FALSE);    /* the next end is not even open */
}

static void
test_shut_down (void)
{
  DpTransport *ends[3];
  DpDevice *devs[2] = { open_device (test_device (0)), open_device (test_device (1)) };
  Stage s[3] = { 0 };
  GThread *a, *b;

  dp_transport_local_new (3, ends);
  for (int i = 0; i < 2; i++) {
    s[i] = (Stage) { .end = ends[i], .index = i, .stages = 3 };
    open_end (&s[i], devs[i]);
  }
  a = g_thread_new ("block", wait_for_block, ends[0]);
  b = g_thread_new ("room", wait_for_room, ends[1]);
  ends[2]->shut_down (ends[2]);
  g_assert_null (g_thread_join (a));
  g_assert_null (g_thread_join (b));
  for (int i = 0; i < 3; i++)
    ends[i]->close (ends[i]);
  for (int i = 0; i < 3; i++)
    ends[i]->free (ends[i]);
  dp_device_close (devs[0]);
  dp_device_close (devs[1]);
}

/* A sentence that is too long is cut between characters. */
static void
test_long_error (void)
{
  DpBlock b = { 0 };
  g_autoptr (GString) long_one = g_string_new ("x");

  while (long_one->len < 2 * sizeof b.error)
    g_string_append (long_one, "é");
  dp_block_fail (&b, g_error_new_literal (DP_ERROR, DP_ERROR_DEVICE, long_one->str));
  dp_block_fail (&b, g_error_new_literal (DP_ERROR, DP_ERROR_FAILED, "the second"));
  g_autoptr (GError) error = dp_block_error (&b);

  g_assert_error (error, DP_ERROR, DP_ERROR_DEVICE);
  g_assert_true (g_utf8_validate (error->message, -1, NULL));
  g_assert_cmpuint (strlen (error->message), >=, sizeof b.error - 2);
  g_assert_true (g_str_has_prefix (long_one->str, error->message));
}

int
main (int argc, char **argv)
{
  test_devices_init (&argc, argv);
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/transport/around", test_around);
  g_test_add_func ("/transport/shut-down", test_shut_down);
  g_test_add_func ("/transport/long-error", test_long_error);
  return g_test_run ();
}
