/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * A fuzzer for compilers that have none: damages a corpus in a fixed random order. `PROGRAM FOLDER [ROUNDS [SEED]]`; round 0 is the
 * corpus itself, so `PROGRAM FOLDER 1` replays what is in a folder.
 */
#include "fuzz.h"

#include <stdlib.h>
#include <string.h>

static const char *const tokens[] = { "{", "}", "[", "]", "\"", ":", ",", "\\", "\\u0000", "\\ud800", "null", "true", "-1", "0", "1e999",
  "9223372036854775807", "18446744073709551616", "4294967296", "\"a\":", "\377", "\0", "//", "/*", "'", "NaN", "[[[[[[[[[[", "__metadata__",
  "shape", "data_offsets", "F64", "[0,0]", " --> ", "\n\n", "\r", "00:00:02,500" };

static int
compare_names (gconstpointer a, gconstpointer b)
{
  return strcmp (*(const char *const *) a, *(const char *const *) b);
}

/* The files of a folder in the order of their names, or the random numbers would mean something else on every machine. */
static GPtrArray *
read_corpus (const char *folder)
{
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  GPtrArray *files = g_ptr_array_new_with_free_func (g_free);

  for (const char *name; dir && (name = g_dir_read_name (dir));)
    g_ptr_array_add (files, g_build_filename (folder, name, NULL));
  g_ptr_array_sort (files, compare_names);
  return files;
}

static void
insert (GByteArray *input, guint at, const void *data, guint size)
{
  g_byte_array_set_size (input, input->len + size);
  memmove (input->data + at + size, input->data + at, input->len - size - at);
  memcpy (input->data + at, data, size);
}

/* One damage anywhere. */
static void
damage (GByteArray *input, GRand *rand)
{
  guint at = input->len > 0 ? g_rand_int_range (rand, 0, input->len) : 0, n = g_rand_int_range (rand, 1, 20);
  const char *token = tokens[g_rand_int_range (rand, 0, G_N_ELEMENTS (tokens))];
  g_autofree guint8 *copy = NULL;

  n = MIN (n, input->len - at);
  switch (at < input->len ? g_rand_int_range (rand, 0, 7) : 4) {
    case 0:
      input->data[at] ^= 1 << g_rand_int_range (rand, 0, 8);
      break;
    case 1:
      input->data[at] = g_rand_int (rand);
      break;
    case 2:
      g_byte_array_set_size (input, at);
      break;
    case 3:
      g_byte_array_remove_range (input, at, n);
      break;
    case 4:
      insert (input, at, token, MAX (strlen (token), 1));
      break;
    case 5:
      copy = g_memdup2 (input->data + at, n);
      insert (input, g_rand_int_range (rand, 0, input->len), copy, n);
      break;
    default:                   /* a digit, most of the time */
      while (at + 1 < input->len && !g_ascii_isdigit (input->data[at]))
        at++;
      input->data[at] = '0' + g_rand_int_range (rand, 0, 10);
  }
}

int
main (int argc, char **argv)
{
  int rounds = argc > 2 ? atoi (argv[2]) : 200;
  guint32 seed = argc > 3 ? strtoul (argv[3], NULL, 10) : 1;
  g_autoptr (GRand) rand = g_rand_new_with_seed (seed);
  g_autoptr (GPtrArray) files = read_corpus (argc > 1 ? argv[1] : "");

  if (files->len == 0) {
    g_printerr ("usage: %s FOLDER [ROUNDS [SEED]]; there must be a file in the folder\n", argv[0]);
    return 2;
  }
  g_print ("%u files, %d rounds, seed %u\n", files->len, rounds, seed);
  for (int round = 0; round < rounds; round++)
    for (guint f = 0; f < files->len; f++) {
      g_autofree char *data = NULL;
      g_autoptr (GByteArray) input = g_byte_array_new ();
      int times = round == 0 ? 0 : g_rand_int_range (rand, 1, 6);
      gsize size;

      if (!g_file_get_contents (g_ptr_array_index (files, f), &data, &size, NULL))
        return 2;
      g_byte_array_append (input, (const guint8 *) data, size);
      for (int i = 0; i < times; i++)
        damage (input, rand);
      LLVMFuzzerTestOneInput (input->data, input->len);
    }
  return 0;
}
