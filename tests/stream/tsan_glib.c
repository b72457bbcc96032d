/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * tsan_glib.c: ThreadSanitizer cannot see the locks inside an uninstrumented GLib (they are futexes) and would call all they protect a
 * race. These functions stand in front of GLib's, tell the sanitizer what they are about to do, and call them. Only linked with
 * -Db_sanitize=thread.
 */
#include <dlfcn.h>
#include <glib.h>
#include <sanitizer/tsan_interface.h>

/* oneDNN's cache of primitives: it compares descriptors under a lock of its own, and how they got there is not instrumented. */
const char *__tsan_default_suppressions (void);

const char *
__tsan_default_suppressions (void)
{
  return "race:libdnnl.so\n";
}

#define REAL(name) \
  static __typeof__ (name) *real; \
  if (__atomic_load_n (&real, __ATOMIC_RELAXED) == NULL) \
    __atomic_store_n (&real, (__typeof__ (name) *) dlsym (RTLD_NEXT, #name), __ATOMIC_RELAXED)

#undef g_mutex_lock
#undef g_mutex_unlock
#undef g_cond_wait
#undef g_cond_wait_until

static void
before_lock (void *lock)
{
  __tsan_mutex_pre_lock (lock, __tsan_mutex_linker_init);
}

static void
after_lock (void *lock)
{
  __tsan_mutex_post_lock (lock, __tsan_mutex_linker_init, 0);
}

static void
before_unlock (void *lock)
{
  __tsan_mutex_pre_unlock (lock, __tsan_mutex_linker_init);
}

static void
after_unlock (void *lock)
{
  __tsan_mutex_post_unlock (lock, __tsan_mutex_linker_init);
}

void
g_mutex_lock (GMutex *mutex)
{
  REAL (g_mutex_lock);
  before_lock (mutex);
  real (mutex);
  after_lock (mutex);
}

void
g_mutex_unlock (GMutex *mutex)
{
  REAL (g_mutex_unlock);
  before_unlock (mutex);
  real (mutex);
  after_unlock (mutex);
}

void
g_cond_wait (GCond *cond, GMutex *mutex)
{
  REAL (g_cond_wait);
  before_unlock (mutex);
  after_unlock (mutex);
  real (cond, mutex);
  before_lock (mutex);
  after_lock (mutex);
}

gboolean
g_cond_wait_until (GCond *cond, GMutex *mutex, gint64 end_time)
{
  gboolean signalled;

  REAL (g_cond_wait_until);
  before_unlock (mutex);
  after_unlock (mutex);
  signalled = real (cond, mutex, end_time);
  before_lock (mutex);
  after_lock (mutex);
  return signalled;
}

/* The same address may be another lock's afterwards. */
void
g_mutex_clear (GMutex *mutex)
{
  REAL (g_mutex_clear);
  __tsan_mutex_destroy (mutex, __tsan_mutex_linker_init);
  real (mutex);
}
