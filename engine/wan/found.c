/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "found.h"
#include "error.h"
#include "published.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LAYOUT "a model is a directory in diffusers layout or of Wan's own repositories, or a file of the transformer's weights"

/* ---- opening ---- */

gboolean
dp_found_unreadable (const char *path, int failure, const char *note, GError **error)
{
  GStatBuf st;

  if ((failure == ENOENT || failure == ELOOP) && g_lstat (path, &st) == 0 && S_ISLNK (st.st_mode))
    dp_error_set (error, DP_ERROR_NOT_FOUND, "%s: it is a link to a file that is not there: the download is not complete; "
        "fetch it again", path);
  else if (failure == ENOENT || failure == ENOTDIR)
    dp_error_set (error, DP_ERROR_NOT_FOUND, "%s: cannot be read: %s%s%s", path, g_strerror (failure), note ? "; " : "", note ? note : "");
  else if (failure == EACCES || failure == EPERM)
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: cannot be read: %s; give the user that runs this the right to read it and to enter "
        "the directories above it", path, g_strerror (failure));
  else
    dp_error_set (error, DP_ERROR_FAILED, "%s: cannot be read: %s", path, g_strerror (failure));
  return FALSE;
}

DpFound
dp_found_at (const char *path, GError **error)
{
  GStatBuf st;

  if (g_stat (path, &st) == 0)
    return DP_FOUND_SOMETHING;
  int failure = errno;
  if (failure == ENOTDIR || (failure == ENOENT && g_lstat (path, &st) != 0))
    return DP_FOUND_NOTHING;
  dp_found_unreadable (path, failure, NULL, error);
  return DP_FOUND_BARRED;
}

int
dp_found_open (const char *path, const char *note, gint64 *size, GError **error)
{
  int fd = open (path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat st;

  if (fd < 0 || fstat (fd, &st) < 0) {
    dp_found_unreadable (path, errno, note, error);
  } else if (!S_ISREG (st.st_mode)) {
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: expected a regular file, found %s", path, S_ISDIR (st.st_mode) ? "a directory"
        : "something else");
  } else {
    *size = st.st_size;
    return fd;
  }
  if (fd >= 0)
    close (fd);
  return -1;
}

gboolean
dp_found_read (const char *path, gsize max, const char *what, const char *note, char **data, gsize *size, GError **error)
{
  gint64 length;
  int fd = dp_found_open (path, note, &length, error);
  gssize n = 0;

  if (fd < 0)
    return FALSE;
  if (length > (gint64) max) {
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: expected %s of at most %" G_GSIZE_FORMAT " bytes, found %" G_GINT64_FORMAT, path, what,
        max, length);
    close (fd);
    return FALSE;
  }
  *data = g_malloc (length + 1);
  for (*size = 0; *size < (gsize) length; *size += n) {
    n = read (fd, *data + *size, length - *size);
    if (n < 0 && errno == EINTR)
      n = 0;
    else if (n <= 0)
      break;
  }
  if (n < 0) {
    dp_found_unreadable (path, errno, note, error);
    g_clear_pointer (data, g_free);
  } else {
    (*data)[*size] = 0;
  }
  close (fd);
  return n >= 0;
}

/* ---- contents ---- */

static gboolean
begins (const char *data, gsize size, const char *with, gsize length)
{
  return size >= length && memcmp (data, with, length) == 0;
}

/* The first line, if this is text that people read. */
static char *
first_line (const char *data, gsize size)
{
  gsize n = 0;

  while (n < size && n < 60 && g_ascii_isprint (data[n]))
    n++;
  return n >= 8 && (n == size || n == 60 || g_ascii_isspace (data[n])) ? g_strndup (data, n) : NULL;
}

char *
dp_found_content (const char *data, gsize size)
{
  static const struct { const char *bytes; gsize n; const char *what; } known[] = {
    { "version https://git-lfs", 23, "a Git LFS pointer, which stands for the file; fetch the file with `git lfs pull`" },
    { "GGUF", 4, "a GGUF file, which has weights" },
    { "PK\3\4", 4, "a PyTorch file or another zip archive; fetch or save the weights as .safetensors" },
    { "\200\2\212\n", 4, "a PyTorch file of the format before 1.6; save it again: torch.save(torch.load(FILE, weights_only=True), FILE)" },
    { "\200\2", 2, "a Python pickle; fetch or save the weights as .safetensors" },
    { "\357\273\277", 3, "a byte order mark; save the file as UTF-8 without one" },
    { "\377\376", 2, "a byte order mark of UTF-16; save the file as UTF-8 without one" },
    { "\376\377", 2, "a byte order mark of UTF-16; save the file as UTF-8 without one" },
    { "\037\213", 2, "a gzip archive; unpack it" },
    { "<", 1, "a web page; the download was refused or went wrong, so fetch the file again" },
  };
  g_autofree char *line = NULL;

  if (size == 0)
    return g_strdup ("an empty file; fetch it again");
  for (gsize i = 0; i < G_N_ELEMENTS (known); i++)
    if (begins (data, size, known[i].bytes, known[i].n))
      return g_strdup (known[i].what);
  line = *data == '{' || *data == '[' ? NULL : first_line (data, size);
  return line ? g_strdup_printf ("text that begins with \"%s\"; fetch the file again", line) : NULL;
}

/* ---- paths that are no model ---- */

char *
dp_found_name (const char *dir, const char *prefix, const char *suffix)
{
  g_autoptr (GDir) names = g_dir_open (dir, 0, NULL);
  const char *name, *best = NULL;
  g_autofree char *kept = NULL;

  while (names && (name = g_dir_read_name (names)))
    if (g_str_has_prefix (name, prefix) && g_str_has_suffix (name, suffix) && (best == NULL || strcmp (name, best) < 0)) {
      g_free (kept);
      best = kept = g_strdup (name);
    }
  return g_steal_pointer (&kept);
}

gboolean
dp_found_has (const char *dir, const char *name)
{
  g_autofree char *path = g_build_filename (dir, name, NULL);

  return g_file_test (path, G_FILE_TEST_EXISTS);
}

/* The hub's cache keeps models--OWNER--NAME/snapshots/COMMIT. The first snapshot that is a model, or NULL. */
static char *
find_snapshot (const char *repository)
{
  g_autofree char *snapshots = g_build_filename (repository, "snapshots", NULL);
  g_autoptr (GDir) names = g_dir_open (snapshots, 0, NULL);
  const char *name;

  while (names && (name = g_dir_read_name (names))) {
    g_autofree char *snapshot = g_build_filename (snapshots, name, NULL);

    if (dp_found_has (snapshot, "model_index.json"))
      return g_steal_pointer (&snapshot);
  }
  return NULL;
}

/* "Wan-AI/Wan2.1-T2V-1.3B-Diffusers" */
static gboolean
is_hub_name (const char *dir)
{
  const char *slash = strchr (dir, '/');

  return slash && slash > dir && *dir != '.' && *dir != '~' && slash[1] && strchr (slash + 1, '/') == NULL;
}

static void
refuse_file (const char *path, GError **error)
{
  g_autofree char *dir = g_path_get_dirname (path), *base = g_path_get_basename (path), *instead = NULL;
  char head[64];
  int fd = open (path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  gssize n = fd < 0 ? -1 : read (fd, head, sizeof head);

  if (fd >= 0)
    close (fd);
  instead = n < 0 ? NULL : dp_found_content (head, n);
  if (strcmp (base, "model_index.json") == 0)
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: a file, and not a directory; name the directory that it is in: %s", path, dir);
  else
    dp_error_set (error, DP_ERROR_BAD_MODEL, "%s: expected a model, found %s; " LAYOUT, path, instead ? instead : "a file that has no weights");
}

/* FALSE: it is nothing known. */
static gboolean
refuse_known_directory (const char *dir, GError **error)
{
  g_autofree char *hub = g_build_filename (dir, "hub", NULL), *cached = dp_found_name (dir, "models--", "");
  g_autofree char *gguf = dp_found_name (dir, "", ".gguf"), *pth = dp_found_name (dir, "", ".pth"), *parent = g_path_get_dirname (dir);
  const char *cache = cached ? dir : hub;
  g_autofree char *repository = NULL, *snapshot = NULL;

  if (dp_found_has (dir, "snapshots")) {
    snapshot = find_snapshot (dir);
    if (snapshot)
      dp_error_set (error, DP_ERROR_NOT_FOUND, "%s: a folder of the Hugging Face cache; the model in it is %s", dir, snapshot);
    else
      dp_error_set (error, DP_ERROR_NOT_FOUND, "%s: a folder of the Hugging Face cache, in which no snapshot has a model_index.json: it is "
          "not a model in diffusers layout, or the download is not complete", dir);
  } else if (cached || (cached = dp_found_name (hub, "models--", ""))) {
    repository = g_build_filename (cache, cached, NULL);
    snapshot = find_snapshot (repository);
    dp_error_set (error, DP_ERROR_NOT_FOUND, "%s: the Hugging Face cache; name a model in it, such as %s", dir, snapshot ? snapshot
        : "models--OWNER--NAME/snapshots/COMMIT");
  } else if (dp_found_has (parent, "model_index.json")) {
    dp_error_set (error, DP_ERROR_NOT_FOUND, "%s: a part of a model; name the directory above it, which has the model_index.json", dir);
  } else if (gguf || pth) {
    dp_error_set (error, DP_ERROR_NOT_FOUND, "%s: no model in this directory: it has %s and no model_index.json, so it is in another "
        "format; " LAYOUT, dir, gguf ? gguf : pth);
  } else {
    return FALSE;
  }
  return TRUE;
}

void
dp_found_no_model (const char *dir, GError **error)
{
  const char *repository = dp_published_like (dir);
  GStatBuf st;

  if (g_stat (dir, &st) != 0) {
    int failure = errno;

    if (failure != ENOENT && failure != ENOTDIR)
      dp_found_unreadable (dir, failure, NULL, error);
    else if (g_lstat (dir, &st) == 0)
      dp_error_set (error, DP_ERROR_NOT_FOUND, "%s: no such directory: it is a link to nothing; " LAYOUT, dir);
    else if (repository || is_hub_name (dir))
      dp_error_set (error, DP_ERROR_NOT_FOUND, "%s: no such directory; nothing is fetched here, so a model of the Hugging Face hub has to "
          "be downloaded first, with `hf download %s --local-dir DIR`; then name DIR", dir, repository ? repository : dir);
    else
      dp_error_set (error, DP_ERROR_NOT_FOUND, "%s: no such directory; " LAYOUT, dir);
  } else if (!S_ISDIR (st.st_mode)) {
    refuse_file (dir, error);
  } else if (!refuse_known_directory (dir, error)) {
    dp_error_set (error, DP_ERROR_NOT_FOUND, "%s: no model in this directory: it has no model_index.json; " LAYOUT, dir);
  }
}

/* ---- weights that have another name ---- */

static const char *
advice (const char *name, const char *stem)
{
  g_autofree char *shards = g_strconcat (stem, "-", NULL);

  if (g_str_has_prefix (name, shards) && strstr (name, "-of-"))
    return "which is one of several; fetch the .index.json too";
  if (g_str_has_suffix (name, ".json"))
    return "the index of a variant; rename or link it and fetch the files that it names";
  if (g_str_has_suffix (name, ".safetensors") || g_str_has_suffix (name, ".gguf") || g_str_has_suffix (name, ".pth")
      || g_str_has_suffix (name, ".pt"))
    return "a variant or under another name; rename or link it, if it is what the config file describes";
  return "a format that is not supported; fetch or save the weights as .safetensors";
}

void
dp_found_no_weights (const char *dir, const char *stem, GError **error)
{
  static const char *const suffixes[] = { ".safetensors", ".json", ".gguf", ".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5" };
  g_autofree char *found = NULL, *variant = g_strconcat (stem, ".safetensors.index.", NULL);

  for (gsize i = 0; i < G_N_ELEMENTS (suffixes) && found == NULL; i++)
    found = dp_found_name (dir, strcmp (suffixes[i], ".json") == 0 ? variant : "", suffixes[i]);
  if (found)
    dp_error_set (error, DP_ERROR_NOT_FOUND, "%s/%s.safetensors: no weights there: expected this file, or shards with "
        "%s.safetensors.index.json, found %s, %s", dir, stem, stem, found, advice (found, stem));
  else
    dp_error_set (error, DP_ERROR_NOT_FOUND, "%s/%s.safetensors: no weights there: expected this file, or shards with "
        "%s.safetensors.index.json, found neither; the download is not complete", dir, stem, stem);
}
