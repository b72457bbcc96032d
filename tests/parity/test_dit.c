/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * The diffusion transformer against WanTransformer3DModel: one layer, all of it, passes that read neighbours' keys and values, and passes
 * whose frames have several steps.
 *
 * Each pass is of one text; there are two. Shapes: L tokens, D model width, c latent channels, h x w latent size.
 */
#include "parity.h"
#include "wan/dit.h"

#include <string.h>

#define TOLERANCE 1e-5
#define MAX_STEPS 8

typedef struct
{
  ParityCase *c;
  ParityModel *model;
  DpWeights *weights;
  DpDevice *dev;
  char *name, *model_name;      /* MODEL-DEVICE, MODEL */
  int h, w, channels, layers, steps;
  float timesteps[MAX_STEPS];
  float *text[2];
  int text_n[2], text_length;
  int s;                        /* the text of the passes */
} Fixture;

static void
fixture_open (Fixture *f, const char *data)
{
  g_auto (GStrv) name = g_strsplit (data, "-", 2);
  f->name = g_strdup (data);
  f->model_name = g_strdup (name[0]);
  f->c = parity_case_open ("dit", name[0]);
  f->model = parity_model_open (name[0]);
  f->weights = parity_model_weights (f->model, "transformer");
  f->dev = parity_device_open (name[1]);
  f->h = parity_int (f->c, "h");
  f->w = parity_int (f->c, "w");
  f->channels = f->model->config.dit.in_channels;
  f->layers = parity_int (f->c, "layers");
  f->text_length = parity_int (f->c, "text_length");
  JsonArray *t = json_object_get_array_member (f->c->settings, "timesteps");
  f->steps = json_array_get_length (t);
  g_assert_cmpint (f->steps, <=, MAX_STEPS);
  for (int i = 0; i < f->steps; i++)
    f->timesteps[i] = json_array_get_double_element (t, i);
  f->s = 0;
  for (int s = 0; s < 2; s++) {
    gint64 dims[8];
    f->text[s] = parity_tensor (f->c, NULL, dims, "text_%d", s);
    f->text_n[s] = dims[0];
  }
}

static void
fixture_close (Fixture *f)
{
  parity_device_close (f->dev);
  for (int s = 0; s < 2; s++)
    g_free (f->text[s]);
  dp_weights_free (f->weights);
  parity_model_free (f->model);
  parity_case_free (f->c);
  g_free (f->model_name);
  g_free (f->name);
}

#define INPUT_FRAMES 6
#define CACHED_FRAMES 2

/* The steps of a pass whose frames all have the same. */
static const int *
all (int step)
{
  static int steps[MAX_STEPS][INPUT_FRAMES];
  for (int i = 0; i < INPUT_FRAMES; i++)
    steps[step][i] = step;
  return steps[step];
}

/* A list of numbers of the case, at most INPUT_FRAMES; how many. */
static int
ints (JsonArray *list, int *out)
{
  int n = json_array_get_length (list);
  g_assert_cmpint (n, <=, INPUT_FRAMES);
  for (int i = 0; i < n; i++)
    out[i] = json_array_get_int_element (list, i);
  return n;
}

static DpDit *
open_borrower (Fixture *f, const DpDit *lender, DpHalves halves)
{
  g_autoptr (GError) error = NULL;
  DpDit *dit = dp_dit_new (f->dev, &f->model->config.dit, f->weights, &(DpDitSpec) {
        .halves = halves, .lender = lender, .type = DP_TYPE_F32, .latent_h = f->h, .latent_w = f->w, .max_input = INPUT_FRAMES,
        .max_keys = INPUT_FRAMES + CACHED_FRAMES, .max_cached = CACHED_FRAMES, .steps = f->steps, .timesteps = f->timesteps,
      }, &error);
  g_assert_no_error (error);
  g_assert_cmpint (dp_dit_tokens_per_frame (dit), ==, f->h * f->w / 4);
  return dit;
}

static DpDit *
open_range (Fixture *f, int first, int last)
{
  return open_borrower (f, NULL, dp_halves_of_layers (first, last));
}

static DpDitText *
open_text (Fixture *f, DpDit *dit, DpHalves halves)
{
  g_autoptr (GError) error = NULL;
  DpDitText *text = dp_dit_text_new (dit, halves, f->text[f->s], f->text_n[f->s], f->text_length, &error);
  g_assert_no_error (error);
  return text;
}

static void
check (const Fixture *f, const char *what, const float *got, const float *want, gsize n)
{
  g_autofree char *full = g_strdup_printf ("dit %s, %s", f->name, what);
  parity_check (full, got, want, n, TOLERANCE);
}

/* The text's velocity, of both [2, c, frames, h, w] in the file, as new [frames, h, w, c]. */
static float *
want_velocity (const Fixture *f, const ParityCase *c, gsize *n, const char *name)
{
  gint64 dims[8];
  g_autofree float *x = parity_tensor (c, n, dims, "%s", name);
  *n /= 2;
  return parity_channels_last (x + f->s * *n, dims[1], dims[2], dims[3], dims[4]);
}

/* Part of the way through the layers. */
typedef struct
{
  DpDit *dit;
  DpHalves halves;
} Part;

/* Latents [frames, h, w, c] through layers given as `parts` one after the other; new [frames - first, h, w, c]. */
static float *
run_parts (Fixture *f, const Part *parts, int n_parts, int frames, const float *latents, DpDitPass pass, int first, gsize *n)
{
  DpDevice *dev = f->dev;
  gsize pixels = (gsize) f->h * f->w, D = (gsize) f->model->config.dit.heads * f->model->config.dit.head_dim;
  gsize tokens_n = frames * (pixels / 4) * D;
  *n = (frames - first) * pixels * f->channels;
  float *in = parity_upload (dev, latents, frames * pixels * f->channels);
  float *tokens = parity_upload (dev, NULL, tokens_n), *velocity = parity_upload (dev, NULL, *n);
  dp_dit_embed (parts[0].dit, frames, in, tokens);
  pass.frames = frames;
  pass.tokens = tokens;
  for (int i = 0; i < n_parts; i++) {
    DpDitText *text = open_text (f, parts[i].dit, parts[i].halves);
    pass.halves = parts[i].halves;
    pass.text = text;
    dp_dit_run (parts[i].dit, &pass);
    dp_dit_text_free (parts[i].dit, text);
  }
  dp_dit_head (parts[n_parts - 1].dit, frames, first, pass.steps, tokens, velocity);
  float *out = parity_download (dev, velocity, *n);
  dev->ops->free (dev, velocity);
  dev->ops->free (dev, tokens);
  dev->ops->free (dev, in);
  return out;
}

static float *
run (Fixture *f, DpDit *dit, int frames, const float *latents, DpDitPass pass, int first, gsize *n)
{
  return run_parts (f, &(Part) { dit, dp_dit_halves (dit) }, 1, frames, latents, pass, first, n);
}

static void
test_layer (gconstpointer data)
{
  Fixture f;
  fixture_open (&f, data);
  int layer = parity_int (f.c, "layer");
  gsize n;
  g_autofree float *in = parity_tensor (f.c, &n, NULL, "layer_in"), *want = parity_tensor (f.c, NULL, NULL, "layer_out");
  DpDit *dit = open_range (&f, layer, layer + 1);
  DpDitText *text = open_text (&f, dit, dp_dit_halves (dit));
  float *tokens = parity_upload (f.dev, in, n);
  dp_dit_run (dit, &(DpDitPass) { .halves = dp_dit_halves (dit), .frames = parity_int (f.c, "frames"), .steps = all (parity_int (f.c, "layer_step")), .text = text,
        .tokens = tokens });
  g_autofree float *got = parity_download (f.dev, tokens, n);
  check (&f, "one layer", got, want, n);
  f.dev->ops->free (f.dev, tokens);
  dp_dit_text_free (dit, text);
  dp_dit_free (dit);
  fixture_close (&f);
}

static void
check_velocity (Fixture *f)
{
  gint64 dims[8];
  g_autofree float *latents = parity_video (f->c, dims, "latents");
  int frames = dims[1];
  DpDit *whole = open_range (f, 0, f->layers);
  int end = 2 * f->layers;
  DpHalves thirds[3] = { { 0, 1 }, { 1, end - 3 }, { end - 3, end } };  /* cut behind two self-attentions */
  Part split[3], pieces[3];
  for (int i = 0; i < 3; i++) {
    split[i] = (Part) { open_borrower (f, NULL, thirds[i]), thirds[i] };
    pieces[i] = (Part) { whole, thirds[i] };
  }
  for (int i = 0; i < f->steps; i++) {
    gsize n, m;
    g_autofree char *name = g_strdup_printf ("velocity_%d", i);
    g_autofree float *want = want_velocity (f, f->c, &n, name);
    g_autofree float *got = run (f, whole, frames, latents, (DpDitPass) { .steps = all (i) }, 0, &m);
    g_assert_cmpuint (n, ==, m);
    g_autofree char *what = g_strdup_printf ("velocity at timestep %g", f->timesteps[i]);
    check (f, what, got, want, n);
    g_autofree float *parts = run_parts (f, split, 3, frames, latents, (DpDitPass) { .steps = all (i) }, 0, &m);
    parity_check_same ("layers in three ranges", parts, got, n * sizeof (float));
    g_autofree float *three = run_parts (f, pieces, 3, frames, latents, (DpDitPass) { .steps = all (i) }, 0, &m);
    parity_check_same ("three parts of a range", three, got, n * sizeof (float));
  }
  for (int i = 0; i < 3; i++)
    dp_dit_free (split[i].dit);
  dp_dit_free (whole);
}

/* Two passes of the scheme: block b + 1 stores keys and values of its first frames, block b reads them. */
static void
check_cache (Fixture *f)
{
  g_autoptr (GError) error = NULL;
  gint64 dims[8];
  gsize n, m;
  int first = parity_int (f->c, "cache_first"), count = parity_int (f->c, "cache_frames");
  DpDit *dit = open_range (f, 0, f->layers);
  DpDitCache *cache = dp_dit_cache_new (dit, dp_dit_halves (dit), &error);
  g_assert_no_error (error);

  g_autofree float *next = parity_video (f->c, dims, "window_next");
  g_autofree float *want_next = want_velocity (f, f->c, &n, "velocity_next");
  g_autofree float *got_next = run (f, dit, dims[1], next, (DpDitPass) { .steps = all (parity_int (f->c, "next_step")),
        .keep_head = { cache, first, count } }, 0, &m);
  g_assert_cmpuint (n, ==, m);
  check (f, "a pass that fills a cache", got_next, want_next, n);

  /* The head of the own frames only is the tail of the head of all. */
  g_autofree float *own = run (f, dit, dims[1], next, (DpDitPass) { .steps = all (parity_int (f->c, "next_step")) }, first, &m);
  parity_check_same ("head of the own frames", own, got_next + n - m, m * sizeof (float));

  g_autofree float *window = parity_video (f->c, dims, "window");
  g_autofree float *want = want_velocity (f, f->c, &n, "velocity_cached");
  g_autofree float *got = run (f, dit, dims[1], window, (DpDitPass) { .steps = all (parity_int (f->c, "cached_step")),
        .behind = { cache, count } }, 0, &m);
  g_assert_cmpuint (n, ==, m);
  check (f, "a pass that reads a cache", got, want, n);

  dp_dit_cache_free (dit, cache);
  dp_dit_free (dit);
}

/* Frames of several steps in one pass. */
static void
check_steps (Fixture *f)
{
  g_autoptr (ParityCase) c = parity_case_open ("passes", f->model_name);
  JsonArray *mixed = json_object_get_array_member (c->settings, "mixed");
  gint64 dims[8];
  g_autofree float *latents = parity_video (f->c, dims, "latents");
  int frames = dims[1], first = 2;
  DpDit *dit = open_range (f, 0, f->layers);
  for (guint i = 0; i < json_array_get_length (mixed); i++) {
    int steps[INPUT_FRAMES];
    gsize n, m;
    g_assert_cmpint (ints (json_array_get_array_element (mixed, i), steps), ==, frames);
    g_autofree char *name = g_strdup_printf ("velocity_mixed_%u", i);
    g_autofree float *want = want_velocity (f, c, &n, name);
    g_autofree float *got = run (f, dit, frames, latents, (DpDitPass) { .steps = steps }, 0, &m);
    g_assert_cmpuint (n, ==, m);
    g_autofree char *what = g_strdup_printf ("steps %d %d %d %d %d", steps[0], steps[1], steps[2], steps[3], steps[4]);
    check (f, what, got, want, n);
    g_autofree float *own = run (f, dit, frames, latents, (DpDitPass) { .steps = steps }, first, &m);
    parity_check_same ("head of the last frames", own, got + n - m, m * sizeof (float));
  }
  dp_dit_free (dit);
}

/* One pass of test_neighbours(): latents and velocity by name, and the caches. */
static void
neighbour_pass (Fixture *f, const ParityCase *c, DpDit *dit, const char *block, const char *pass_name, DpDitPass pass)
{
  gint64 dims[8];
  gsize n, m;
  int steps[INPUT_FRAMES];
  g_autofree char *member = g_strdup_printf ("%s_steps", pass_name), *name = g_strdup_printf ("velocity_%s", pass_name);
  g_autofree float *latents = parity_video (c, dims, block);
  g_assert_cmpint (ints (json_object_get_array_member (c->settings, member), steps), ==, dims[1]);
  pass.steps = steps;
  g_autofree float *got = run (f, dit, dims[1], latents, pass, 0, &m);
  if (dp_weights_find (c->tensors, name) == NULL)       /* a pass that is only there for what it keeps */
    return;
  g_autofree float *want = want_velocity (f, c, &n, name);
  g_assert_cmpuint (n, ==, m);
  check (f, name, got, want, n);
}

/* Keys and values before, on both sides, and kept by a pass that has some before itself. */
static void
check_neighbours (Fixture *f)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (ParityCase) c = parity_case_open ("passes", f->model_name);
  DpDit *dit = open_range (f, 0, f->layers);
  DpDitCache *caches[3];
  int tail[INPUT_FRAMES], next_head[INPUT_FRAMES], next_tail[INPUT_FRAMES];
  ints (json_object_get_array_member (c->settings, "previous_tail"), tail);
  ints (json_object_get_array_member (c->settings, "next_head"), next_head);
  ints (json_object_get_array_member (c->settings, "next_tail"), next_tail);
  for (int i = 0; i < 3; i++) {
    caches[i] = dp_dit_cache_new (dit, dp_dit_halves (dit), &error);
    g_assert_no_error (error);
  }
  neighbour_pass (f, c, dit, "previous", "previous", (DpDitPass) { .keep_tail = { caches[0], tail[0], tail[1] } });
  neighbour_pass (f, c, dit, "next", "next", (DpDitPass) { .before = { caches[0], tail[1] },
        .keep_head = { caches[1], next_head[0], next_head[1] }, .keep_tail = { caches[2], next_tail[0], next_tail[1] } });
  neighbour_pass (f, c, dit, "own", "between", (DpDitPass) { .before = { caches[0], tail[1] }, .behind = { caches[1], next_head[1] } });
  neighbour_pass (f, c, dit, "own", "after", (DpDitPass) { .before = { caches[2], next_tail[1] } });
  for (int i = 0; i < 3; i++)
    dp_dit_cache_free (dit, caches[i]);
  dp_dit_free (dit);
}

/* One layer over a whole window, which keeps its first and last frames. Then over the frames between them alone, with the kept ones in
 * front, or on both sides. Those frames see the same keys at the same positions, so they come out the same: to the bit, except on ref,
 * which turns a normed key before it rounds it. */
static void
check_window (Fixture *f)
{
  enum { FRONT = 2, OWN = 3, BACK = 1, ALL = FRONT + OWN + BACK };
  static const int steps[ALL] = { 0, 2, 2, 1, 3, 0 };
  g_autoptr (GError) error = NULL;
  DpDit *dit = open_range (f, 1, 2);
  DpDitText *text = open_text (f, dit, dp_dit_halves (dit));
  gsize frame = (gsize) dp_dit_tokens_per_frame (dit) * f->model->config.dit.heads * f->model->config.dit.head_dim;
  g_autofree float *in = g_new (float, ALL * frame);
  g_autoptr (GRand) random = g_rand_new_with_seed (16);
  for (gsize i = 0; i < ALL * frame; i++)
    in[i] = g_rand_double_range (random, -2, 2);
  DpDitCache *front = dp_dit_cache_new (dit, dp_dit_halves (dit), &error), *back = dp_dit_cache_new (dit, dp_dit_halves (dit), &error);
  g_assert_no_error (error);

  for (int sides = 1; sides <= 2; sides++) {
    int all_frames = sides == 1 ? FRONT + OWN : ALL;
    float *long_tokens = parity_upload (f->dev, in, all_frames * frame);
    float *short_tokens = parity_upload (f->dev, in + FRONT * frame, OWN * frame);
    dp_dit_run (dit, &(DpDitPass) { .halves = dp_dit_halves (dit), .frames = all_frames, .steps = steps, .text = text, .tokens = long_tokens,
          .keep_tail = { front, 0, FRONT }, .keep_head = { back, all_frames - BACK, BACK } });
    dp_dit_run (dit, &(DpDitPass) { .halves = dp_dit_halves (dit), .frames = OWN, .steps = steps + FRONT, .text = text, .tokens = short_tokens,
          .before = { front, FRONT }, .behind = { sides == 2 ? back : NULL, sides == 2 ? BACK : 0 } });
    g_autofree float *want = parity_download (f->dev, long_tokens, all_frames * frame);
    g_autofree float *got = parity_download (f->dev, short_tokens, OWN * frame);
    const char *what = sides == 1 ? "kept frames before" : "kept frames on both sides";
    if (g_str_equal (f->dev->ops->name, "ref"))
      parity_check (what, got, want + FRONT * frame, OWN * frame, 1e-6);
    else
      parity_check_same (what, got, want + FRONT * frame, OWN * frame * sizeof (float));
    f->dev->ops->free (f->dev, long_tokens);
    f->dev->ops->free (f->dev, short_tokens);
  }
  dp_dit_cache_free (dit, front);
  dp_dit_cache_free (dit, back);
  dp_dit_text_free (dit, text);
  dp_dit_free (dit);
}

/* One that works in another's scratch computes the same, leaves nothing there that the other would see, and needs the less memory. */
static void
check_lender (Fixture *f)
{
  gint64 dims[8];
  gsize n, D = (gsize) f->model->config.dit.heads * f->model->config.dit.head_dim;
  g_autofree float *latents = parity_video (f->c, dims, "latents");
  dp_dit_free (open_range (f, 0, f->layers));        /* so that the device's own scratch is there */
  gsize before = f->dev->bytes;
  DpDit *lender = open_range (f, 0, f->layers);
  gsize alone = f->dev->bytes - before;
  DpDit *borrower = open_borrower (f, lender, dp_halves_of_layers (0, f->layers));
  gsize borrowing = f->dev->bytes - before - alone, qkv = sizeof (float) * INPUT_FRAMES * dp_dit_tokens_per_frame (lender) * 3 * D;
  g_assert_cmpuint (borrowing + qkv, <, alone);
  g_autofree float *want = run (f, lender, dims[1], latents, (DpDitPass) { .steps = all (0) }, 0, &n);
  g_free (run (f, borrower, dims[1] - 1, latents, (DpDitPass) { .steps = all (1) }, 0, &n));
  g_autofree float *again = run (f, lender, dims[1], latents, (DpDitPass) { .steps = all (0) }, 0, &n);
  g_autofree float *borrowed = run (f, borrower, dims[1], latents, (DpDitPass) { .steps = all (0) }, 0, &n);
  parity_check_same ("the lender after the borrower", again, want, n * sizeof (float));
  parity_check_same ("the borrower", borrowed, want, n * sizeof (float));
  dp_dit_free (borrower);
  dp_dit_free (lender);
}

/* A test with each of the two texts. */
static void
with_texts (gconstpointer data, void (*test) (Fixture *f))
{
  Fixture f;
  fixture_open (&f, data);
  for (f.s = 0; f.s < 2; f.s++)
    test (&f);
  fixture_close (&f);
}

static void
test_velocity (gconstpointer data)
{
  with_texts (data, check_velocity);
}

static void
test_cache (gconstpointer data)
{
  with_texts (data, check_cache);
}

static void
test_steps (gconstpointer data)
{
  with_texts (data, check_steps);
}

static void
test_neighbours (gconstpointer data)
{
  with_texts (data, check_neighbours);
}

static void
test_window (gconstpointer data)
{
  with_texts (data, check_window);
}

static void
test_lender (gconstpointer data)
{
  with_texts (data, check_lender);
}

int
main (int argc, char **argv)
{
  const char *const names[] = { "odd-cpu", "odd-ref", "wide-cpu", "wide-ref", "deep-cpu", "deep-ref", NULL };
  g_test_init (&argc, &argv, NULL);
  parity_add ("/parity/dit/layer", test_layer, names);
  parity_add ("/parity/dit/velocity", test_velocity, names);
  parity_add ("/parity/dit/cache", test_cache, names);
  parity_add ("/parity/dit/steps", test_steps, names);
  parity_add ("/parity/dit/neighbours", test_neighbours, names);
  parity_add ("/parity/dit/window", test_window, names);
  parity_add ("/parity/dit/lender", test_lender, names);
  return g_test_run ();
}
