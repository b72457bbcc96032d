/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "part_cache.h"
#include "dualparal.h"
#include "thread.h"

#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>

static GMutex taking;           /* from begin to end; before lock */
static GMutex lock;
static GCond changed;
static GList *store;            /* of DpPart, protected by lock, as is: */
static GThread *watcher;        /* frees what nobody wanted for long enough; ends with the last part, and then is still to be joined */
static gboolean watching;
static int freeing;             /* threads that free what was in it */

static int
compare_names (gconstpointer a, gconstpointer b)
{
  return strcmp (*(char *const *) a, *(char *const *) b);
}

void
dp_part_cache_key_add_dir (GString *key, const char *path)
{
  g_autoptr (GPtrArray) names = g_ptr_array_new_with_free_func (g_free);
  g_autoptr (GDir) dir = g_dir_open (path, 0, NULL);
  const char *name;
  GStatBuf st;

  if (dir == NULL)
    g_ptr_array_add (names, g_strdup (path));   /* a file */
  while (dir && (name = g_dir_read_name (dir)))
    g_ptr_array_add (names, g_build_filename (path, name, NULL));
  g_ptr_array_sort (names, compare_names);
  for (guint i = 0; i < names->len; i++)
    if (g_stat (names->pdata[i], &st) == 0)
      g_string_append_printf (key, "\n%s %" G_GUINT64_FORMAT ".%" G_GUINT64_FORMAT " %" G_GINT64_FORMAT " %" G_GINT64_FORMAT ".%09ld",
          (char *) names->pdata[i], (guint64) st.st_dev, (guint64) st.st_ino, (gint64) st.st_size, (gint64) st.st_mtim.tv_sec,
          st.st_mtim.tv_nsec);
}

void
dp_part_cache_key_add_weights (GString *key, const DpWeights *weights)
{
  g_autofree char *dir = g_path_get_dirname (dp_weights_path (weights));

  dp_part_cache_key_add_dir (key, dir);
  /* There may be others beside it, and it may have been changed */
  g_string_append_printf (key, "\n%s%s", dp_weights_path (weights), dp_weights_changes (weights));
}

void
dp_part_cache_key_add_numbers (GString *key, gconstpointer numbers, gsize bytes)
{
  g_string_append_c (key, '\n');
  g_string_append_len (key, numbers, bytes);
}

static void
free_part (gpointer data)
{
  DpPart *part = data;

  part->free_part (part);
  dp_device_close (part->dev);
  g_string_free (part->key, TRUE);
  g_free (part);
}

void
dp_part_cache_begin (void)
{
  g_mutex_lock (&taking);
}

void
dp_part_cache_end (void)
{
  g_mutex_unlock (&taking);
}

gpointer
dp_part_cache_take (gsize size, GString *key, void (*free_part) (DpPart *part))
{
  DpPart *part = NULL;

  g_mutex_lock (&lock);
  for (GList *l = store; l && part == NULL; l = l->next) {
    DpPart *other = l->data;

    if (!g_string_equal (other->key, key))
      continue;
    part = other;
    store = g_list_delete_link (store, l);
    break;
  }
  g_mutex_unlock (&lock);
  if (part) {
    g_string_free (key, TRUE);
    part->dev->allocations = 0;
    return part;
  }
  part = g_malloc0 (size);
  part->key = key;
  part->free_part = free_part;
  return part;
}

gboolean
dp_part_cache_open_device (DpPart *part, const char *device, int threads, GError **error)
{
  char message[256];

  g_mutex_lock (&taking);       /* an engine that has begun to take shall find the rest too */
  g_mutex_unlock (&taking);
  dp_part_cache_clear ();
  part->dev = dp_device_open (device, threads, message, sizeof message);
  if (part->dev == NULL) {
    g_set_error_literal (error, DP_ERROR, DP_ERROR_DEVICE, message);
    return FALSE;
  }
  return TRUE;
}

void
dp_part_cache_loaded (DpPart *part)
{
  part->loaded = !dp_device_cancelled (part->dev);
}

/* Moves what nobody wanted in time from the store to `late`. The time of the next one, or 0. */
static gint64
take_late (GList **late)
{
  gint64 now = g_get_monotonic_time (), next = 0;

  for (GList *l = store, *after; l; l = after) {
    DpPart *part = l->data;

    after = l->next;
    if (part->until_us <= now) {
      store = g_list_remove_link (store, l);
      *late = g_list_concat (l, *late);
    } else if (next == 0 || part->until_us < next)
      next = part->until_us;
  }
  return next;
}

/* With `lock` held, but not meanwhile. */
static void
free_parts (GList *parts)
{
  freeing++;
  g_mutex_unlock (&lock);
  g_list_free_full (parts, free_part);
  g_mutex_lock (&lock);
  freeing--;
  g_cond_broadcast (&changed);
}

static gpointer
watch (gpointer unused G_GNUC_UNUSED)
{
  g_mutex_lock (&lock);
  while (store) {
    GList *late = NULL;
    gint64 next = take_late (&late);

    if (late)
      free_parts (late);
    else
      g_cond_wait_until (&changed, &lock, next);
  }
  watching = FALSE;
  g_mutex_unlock (&lock);
  return NULL;
}

/* Before the libraries go that the parts are made with */
static void
clear_at_exit (void)
{
  GThread *last;

  dp_part_cache_clear ();
  g_mutex_lock (&lock);
  last = g_steal_pointer (&watcher);
  g_mutex_unlock (&lock);
  if (last)
    g_thread_join (last);
}

/* With lock, while none runs. */
static gboolean
start_watcher (void)
{
  static gboolean registered;

  if (watcher)
    g_thread_join (g_steal_pointer (&watcher));
  if (!registered)
    atexit (clear_at_exit);
  registered = TRUE;
  watcher = dp_thread_new ("dp-warm", watch, NULL, NULL);
  return watcher != NULL;
}

void
dp_part_cache_give (DpPart *part, int seconds)
{
  char message[256];

  if (part == NULL)
    return;
  if (seconds <= 0 || !part->loaded || !dp_device_check (part->dev, message, sizeof message)) {
    free_part (part);
    return;
  }
  part->dev->cancel = NULL;     /* it is the engine's, which is freed now */
  part->until_us = g_get_monotonic_time () + seconds * G_TIME_SPAN_SECOND;
  g_mutex_lock (&lock);
  store = g_list_prepend (store, part);
  watching = watching || start_watcher ();
  if (watching)
    part = NULL;
  else                          /* nobody would free it in time */
    store = g_list_remove (store, part);
  g_cond_broadcast (&changed);
  g_mutex_unlock (&lock);
  if (part)
    free_part (part);
}

gsize
dp_part_cache_bytes (const char *device)
{
  gsize bytes = 0;

  g_mutex_lock (&lock);
  for (GList *l = store; l; l = l->next) {
    DpPart *part = l->data;

    if (strcmp (part->dev->name, device) == 0)
      bytes += part->dev->bytes;
  }
  g_mutex_unlock (&lock);
  return bytes;
}

void
dp_part_cache_clear (void)
{
  g_mutex_lock (&lock);
  free_parts (g_steal_pointer (&store));
  while (freeing > 0)
    g_cond_wait (&changed, &lock);
  g_mutex_unlock (&lock);
}
