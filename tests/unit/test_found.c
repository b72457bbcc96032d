/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * What people give instead of a model, and what is there instead of its files: each answer says what it is and
 * what to do.
 */
#include "engine/wan/error.h"
#include "engine/wan/model.h"
#include "engine/wan/tokenizer.h"

#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LFS "version https://git-lfs.github.com/spec/v1\n" \
  "oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"
#define NOBODY 65534

static char *dir;

static char *
path_of (const char *name)
{
  return g_build_filename (dir, name, NULL);
}

static void
put_bytes (const char *name, const char *data, gssize size)
{
  g_autofree char *path = path_of (name), *parent = g_path_get_dirname (path);

  g_assert_cmpint (g_mkdir_with_parents (parent, 0755), ==, 0);
  g_assert_true (g_file_set_contents (path, data, size, NULL));
}

static void
put (const char *name, const char *text)
{
  put_bytes (name, text, -1);
}

static void
link_to (const char *target, const char *name)
{
  g_autofree char *path = path_of (name);

  g_assert_cmpint (symlink (target, path), ==, 0);
}

/* A file of the tiny model, in the model of that name here. */
static void
copy (const char *model, const char *name)
{
  g_autofree char *from = g_test_build_filename (G_TEST_DIST, "models", "tiny", name, NULL);
  g_autofree char *to = g_build_filename (model, name, NULL), *data = NULL;
  gsize size;

  g_assert_true (g_file_get_contents (from, &data, &size, NULL));
  put_bytes (to, data, size);
}

static void
copy_configs (const char *model)
{
  static const char *const names[] = { "model_index.json", "text_encoder/config.json", "transformer/config.json", "vae/config.json",
    "scheduler/scheduler_config.json", "dualparal.json" };

  for (gsize i = 0; i < G_N_ELEMENTS (names); i++)
    copy (model, names[i]);
}

/* One sentence with all of `words`, which are separated by |. Takes the error. */
static void
check (GError *error, int code, const char *words)
{
  g_auto (GStrv) list = g_strsplit (words, "|", -1);

  g_assert_nonnull (error);
  g_test_message ("%s", error->message);
  g_assert_error (error, DP_ERROR, code);
  g_assert_null (strchr (error->message, '\n'));
  for (char **word = list; *word; word++)
    if (strstr (error->message, *word) == NULL)
      g_test_fail_printf ("\"%s\" does not say \"%s\"", error->message, *word);
  g_error_free (error);
}

static void
check_model (const char *path, int code, const char *words)
{
  g_autofree char *full = *path == '/' || *path == '=' ? g_strdup (path + (*path == '=')) : path_of (path);
  GError *error = NULL;

  g_assert_null (dp_model_open (full, NULL, &error));
  check (error, code, words);
}

static void
check_weights (const char *name, const char *stem, int code, const char *words)
{
  g_autofree char *path = path_of (name);
  GError *error = NULL;

  g_assert_null (dp_weights_open (path, stem, &error));
  check (error, code, words);
}

static void
test_not_a_model (void)
{
  put ("files/x.safetensors", LFS);
  put ("files/x.gguf", "GGUF");
  put ("files/x.bin", "");
  put ("gguf/wan.gguf", "GGUF");
  put ("original/Wan2.1_VAE.pth", "PK\3\4");
  put ("cache/hub/models--A--B/snapshots/0123/model_index.json", "{}");
  put ("cache/hub/models--A--B/refs/main", "0123");
  put ("cut/models--A--B/snapshots/0123/config.json", "{}");
  copy_configs ("model");
  put ("empty/readme", "x");
  link_to ("nowhere", "dangling");
  put ("snapshot/readme", "");
  link_to ("../blobs/0123", "snapshot/model_index.json");
  link_to ("round", "round");

  check_model ("none", DP_ERROR_NOT_FOUND, "none: no such directory|diffusers layout");
  check_model ("=Wan-AI/Wan2.1-T2V-1.3B-Diffusers", DP_ERROR_NOT_FOUND, "no such directory|hf download Wan-AI/Wan2.1-T2V-1.3B-Diffusers");
  check_model ("=Wan-AI/Wan2.1-T2V-1.3B", DP_ERROR_NOT_FOUND, "hf download Wan-AI/Wan2.1-T2V-1.3B-Diffusers --local-dir DIR");
  check_model ("wan2.1_t2v_14B", DP_ERROR_NOT_FOUND, "14B: no such directory|hf download Wan-AI/Wan2.1-T2V-14B-Diffusers --local-dir DIR");
  check_model ("Wan2.2-T2V-A14B/", DP_ERROR_NOT_FOUND, "no such directory|hf download Wan-AI/Wan2.2-T2V-A14B-Diffusers --local-dir DIR");
  check_model ("Wan2.2-TI2V-5B", DP_ERROR_NOT_FOUND, "no such directory|hf download Wan-AI/Wan2.2-TI2V-5B-Diffusers --local-dir DIR");
  check_model ("Wan2.1-I2V-14B", DP_ERROR_NOT_FOUND, "no such directory; a model is a directory");
  check_model ("dangling", DP_ERROR_NOT_FOUND, "link to nothing");
  check_model ("round", DP_ERROR_FAILED, "round|Too many levels of symbolic links");
  check_model ("files/x.safetensors", DP_ERROR_BAD_MODEL, "x.safetensors: expected a model, found a Git LFS pointer|git lfs pull|directory in diffusers layout");
  check_model ("files/x.gguf", DP_ERROR_BAD_MODEL, "x.gguf: expected a model, found a GGUF file");
  check_model ("files/x.bin", DP_ERROR_BAD_MODEL, "expected a model, found an empty file|directory in diffusers layout");
  check_model ("model/model_index.json", DP_ERROR_BAD_MODEL, "name the directory that it is in");
  check_model ("model/vae", DP_ERROR_NOT_FOUND, "a part of a model; name the directory above it");
  check_model ("gguf", DP_ERROR_NOT_FOUND, "no model in this directory|wan.gguf");
  check_model ("original", DP_ERROR_NOT_FOUND, "no model in this directory|Wan2.1_VAE.pth|of Wan's own repositories");
  check_model ("cache", DP_ERROR_NOT_FOUND, "the Hugging Face cache|hub/models--A--B/snapshots/0123");
  check_model ("cache/hub", DP_ERROR_NOT_FOUND, "the Hugging Face cache|hub/models--A--B/snapshots/0123");
  check_model ("cache/hub/models--A--B", DP_ERROR_NOT_FOUND, "a folder of the Hugging Face cache|models--A--B/snapshots/0123");
  check_model ("cut/models--A--B", DP_ERROR_NOT_FOUND, "no snapshot has a model_index.json");
  check_model ("snapshot", DP_ERROR_NOT_FOUND, "model_index.json|link to a file that is not there|fetch it again");
  check_model ("empty", DP_ERROR_NOT_FOUND, "no model in this directory: it has no model_index.json");
}

static void
test_config_files (void)
{
  static const struct { const char *text; const char *words; } bad[] = {
    { "\357\273\277{}", "a byte order mark|save the file as UTF-8 without one" },
    { "\377\376{\0", "UTF-16" }, { LFS, "Git LFS pointer|git lfs pull" }, { "", "an empty file" },
    { "<!DOCTYPE html>", "a web page" }, { "Entry not found", "text that begins with \"Entry not found\"" },
    { "{\"a\": \"", "closing quote is missing" }, { "{[[[[[[[[[[[[[[", "more than 8 levels of nesting" },
    { "{/* */}", "characters that json does not have" }, { "{\"a\": \"\377\"}", "not UTF-8" },
  };

  copy_configs ("config");
  for (gsize i = 0; i < G_N_ELEMENTS (bad); i++) {
    put ("config/vae/config.json", bad[i].text);
    check_model ("config", DP_ERROR_BAD_MODEL, bad[i].words);
  }
}

static void
test_weights (void)
{
  static const struct { const char *data; gsize size; const char *words; } bad[] = {
    { LFS, sizeof LFS - 1, "expected a safetensors file, found a Git LFS pointer|git lfs pull" },
    { "GGUF\3\0\0\0\0\0\0\0\0", 13, "a GGUF file|cut off" }, { "PK\3\4\0\0\0\0\0\0\0\0", 12, "a PyTorch file" },
    { "\200\2}q\0X\0\0\0\0\0\0", 12, "a Python pickle" }, { "<html><body></body></html>", 26, "a web page" },
    { "Access to model x is restricted", 31, "text that begins with \"Access to model x is restricted\"" },
    { "\20\0\0\0\0\0\0\0{\"a\"", 12, "a header of 16 bytes|12|cut off" }, { "", 0, "only 0 bytes" },
    { "\1\2\3\4\5\6\7\10\11\12\13\14", 12, "another format" },
  };
  GError *error = NULL;

  for (gsize i = 0; i < G_N_ELEMENTS (bad); i++) {
    put_bytes ("w/model.safetensors", bad[i].data, bad[i].size);
    check_weights ("w", "model", DP_ERROR_BAD_MODEL, bad[i].words);
  }
  put ("i/model.safetensors.index.json", LFS);
  check_weights ("i", "model", DP_ERROR_BAD_MODEL, "expected json, found a Git LFS pointer");

  put ("t/spiece.model", LFS);
  g_autofree char *tokenizer = path_of ("t"), *none = path_of ("none");
  g_assert_null (dp_tokenizer_open (tokenizer, 10, &error));
  check (error, DP_ERROR_BAD_MODEL, "expected a SentencePiece model, found a Git LFS pointer");
  error = NULL;
  g_assert_null (dp_tokenizer_open (none, 10, &error));
  check (error, DP_ERROR_NOT_FOUND, "spiece.model: cannot be read: No such file|a tokenizer.json is not read");
}

static void
test_beside (void)
{
  put ("b1/model.fp16.safetensors", "");
  put ("b2/diffusion_pytorch_model.bin", "");
  put ("b6/wan2.1-t2v-14b-Q4_0.gguf", "");
  put ("b7/Wan2.1_VAE.pth", "");
  put ("b3/model-00001-of-00002.safetensors", "");
  put ("b4/model.safetensors.index.fp16.json", "");
  put ("b5/config.json", "");
  check_weights ("b1", "model", DP_ERROR_NOT_FOUND, "no weights there|model.fp16.safetensors|a variant|rename or link");
  check_weights ("b2", "diffusion_pytorch_model", DP_ERROR_NOT_FOUND, "found diffusion_pytorch_model.bin|not supported|.safetensors");
  check_weights ("b6", "diffusion_pytorch_model", DP_ERROR_NOT_FOUND, "found wan2.1-t2v-14b-Q4_0.gguf|rename or link it");
  check_weights ("b7", "diffusion_pytorch_model", DP_ERROR_NOT_FOUND, "found Wan2.1_VAE.pth|rename or link it");
  check_weights ("b3", "model", DP_ERROR_NOT_FOUND, "model-00001-of-00002.safetensors|fetch the .index.json too");
  check_weights ("b4", "model", DP_ERROR_NOT_FOUND, "model.safetensors.index.fp16.json|a variant");
  check_weights ("b5", "model", DP_ERROR_NOT_FOUND, "found neither|not complete");
  check_weights ("none", "model", DP_ERROR_NOT_FOUND, "found neither");
  link_to ("../blobs/0123", "b5/model.safetensors");
  check_weights ("b5", "model", DP_ERROR_NOT_FOUND, "link to a file that is not there");
}

/* Root may read everything, so another user looks. */
static void
test_barred (void)
{
  g_autofree char *model = path_of ("barred"), *vae = path_of ("barred/vae"), *config = path_of ("barred/vae/config.json"),
      *weights = path_of ("barred/w/model.safetensors"), *spiece = path_of ("barred/t/spiece.model"), *t = path_of ("barred/t");
  GError *error = NULL;
  gboolean root = geteuid () == 0;

  copy_configs ("barred");
  put ("barred/w/model.safetensors", "0123456789");
  put ("barred/t/spiece.model", "0123456789");
  g_chmod (dir, 0755);
  if (root)
    g_assert_cmpint (seteuid (NOBODY), ==, 0);
  if (root && g_access (config, R_OK) != 0) {
    g_assert_cmpint (seteuid (0), ==, 0);
    g_test_skip ("another user cannot see the folder");
    return;
  }
  const struct { const char *path; int mode, normal; const char *words; } bad[] = {
    { config, 0, 0644, "vae/config.json: cannot be read: Permission denied|the right to read it" },
    { vae, 0, 0755, "vae/config.json: cannot be read: Permission denied|to enter the directories" },
    { model, 0, 0755, "model_index.json: cannot be read: Permission denied" },
  };
  for (gsize i = 0; i < G_N_ELEMENTS (bad); i++) {
    if (root)
      g_assert_cmpint (seteuid (0), ==, 0);
    g_chmod (bad[i].path, bad[i].mode);
    if (root)
      g_assert_cmpint (seteuid (NOBODY), ==, 0);
    check_model ("barred", DP_ERROR_BAD_MODEL, bad[i].words);
    if (root)
      g_assert_cmpint (seteuid (0), ==, 0);
    g_chmod (bad[i].path, bad[i].normal);
  }
  g_chmod (weights, 0);
  g_chmod (spiece, 0);
  if (root)
    g_assert_cmpint (seteuid (NOBODY), ==, 0);
  check_weights ("barred/w", "model", DP_ERROR_BAD_MODEL, "model.safetensors: cannot be read: Permission denied");
  check_weights ("barred/w/model.safetensors", NULL, DP_ERROR_BAD_MODEL, "model.safetensors: cannot be read: Permission denied");
  g_assert_null (dp_tokenizer_open (t, 10, &error));
  check (error, DP_ERROR_BAD_MODEL, "spiece.model: cannot be read: Permission denied");
  if (root)
    g_assert_cmpint (seteuid (0), ==, 0);
}

int
main (int argc, char **argv)
{
  int failed;

  g_test_init (&argc, &argv, NULL);
  dir = g_dir_make_tmp ("dp-found-XXXXXX", NULL);
  g_test_add_func ("/found/not-a-model", test_not_a_model);
  g_test_add_func ("/found/config-files", test_config_files);
  g_test_add_func ("/found/weights", test_weights);
  g_test_add_func ("/found/beside", test_beside);
  g_test_add_func ("/found/barred", test_barred);
  failed = g_test_run ();
  g_autofree char *command = g_strdup_printf ("rm -rf '%s'", dir);
  g_assert_cmpint (system (command), ==, 0);
  g_free (dir);
  return failed;
}
