/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * Limits of cgroups, of trees of files like the kernel's; and that of the address space, of this process.
 */
#include "kernels/device.h"
#include "kernels/host.h"
#include "kernels/host_limits.h"

#include <glib.h>
#include <glib/gstdio.h>
#include <sys/resource.h>

static char *dir;

static void
put (const char *path, const char *text)
{
  g_autofree char *file = g_build_filename (dir, path, NULL), *parent = g_path_get_dirname (file);

  g_assert_cmpint (g_mkdir_with_parents (parent, 0700), ==, 0);
  g_assert_true (g_file_set_contents (file, text, -1, NULL));
}

/* The limits with this list of groups. */
static DpCgroupLimits
limits_of (const char *list)
{
  g_autofree char *file = g_build_filename (dir, "list", NULL), *root = g_build_filename (dir, "root", NULL);
  DpCgroupLimits limits;

  put ("list", list);
  dp_host_limits_cgroup (file, root, &limits);
  return limits;
}

static void
check (const char *list, gsize memory, gsize left, int processors)
{
  DpCgroupLimits l = limits_of (list);

  g_assert_cmpuint (l.memory, ==, memory);
  g_assert_cmpuint (l.memory_left, ==, left);
  g_assert_cmpint (l.processors, ==, processors);
}

static void
test_v2 (void)
{
  put ("root/a/b/memory.max", "max\n");
  put ("root/a/b/memory.current", "5000\n");
  put ("root/a/b/cpu.max", "150000 100000\n");
  put ("root/a/memory.max", "8000\n");
  put ("root/a/memory.current", "7000\n");
  put ("root/a/memory.stat", "anon 3000\ninactive_file 1500\nactive_file 500\nfile 2200\n");
  put ("root/a/cpu.max", "max 100000\n");
  put ("root/c/cpu.max", "max 100000\n");
  put ("root/d/memory.max", "4000\n");
  put ("root/d/memory.current", "4100\n");
  check ("0::/a/b\n", 8000, 3000, 2);
  check ("0::/a\n", 8000, 3000, 0);
  check ("0::/c\n", SIZE_MAX, SIZE_MAX, 0);
  check ("0::/d\n", 4000, 0, 0);
  check ("0::/\n", SIZE_MAX, SIZE_MAX, 0);
  /* The host's path, of which a container sees nothing but its own group as the root */
  check ("0::/host/path/x\n", SIZE_MAX, SIZE_MAX, 0);
  put ("root/memory.max", "6000\n");
  put ("root/memory.current", "1000\n");
  put ("root/cpu.max", "50000 100000\n");
  check ("0::/host/path/x\n", 6000, 5000, 1);
  check ("0::/\n", 6000, 5000, 1);
  check ("0::/d\n", 4000, 0, 1);
  check ("", SIZE_MAX, SIZE_MAX, 0);
  check ("nonsense\n0:\n::\n", 6000, 5000, 1);
}

static void
test_v1 (void)
{
  put ("root/memory/job/memory.limit_in_bytes", "8000\n");
  put ("root/memory/job/memory.usage_in_bytes", "6000\n");
  put ("root/memory/job/memory.stat", "inactive_file 100\ntotal_inactive_file 2000\ntotal_active_file 1000\n");
  put ("root/memory/memory.limit_in_bytes", "9223372036854771712\n");
  put ("root/memory/memory.usage_in_bytes", "6000\n");
  put ("root/cpu,cpuacct/job/cpu.cfs_quota_us", "250000\n");
  put ("root/cpu,cpuacct/job/cpu.cfs_period_us", "100000\n");
  put ("root/cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  put ("root/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  check ("4:memory:/job\n3:cpuset:/\n1:cpu,cpuacct:/job\n", 8000, 5000, 3);
  check ("4:memory:/\n1:cpu,cpuacct:/\n", SIZE_MAX, SIZE_MAX, 0);
  /* The folder has its controllers in another order, or is of one of them alone */
  put ("root/cpuacct,cpu/other/cpu.cfs_quota_us", "400000\n");
  put ("root/cpuacct,cpu/other/cpu.cfs_period_us", "100000\n");
  check ("1:cpu,cpuacct:/other\n", SIZE_MAX, SIZE_MAX, 4);
  put ("root/cpu/third/cpu.cfs_quota_us", "500000\n");
  put ("root/cpu/third/cpu.cfs_period_us", "100000\n");
  check ("1:cpuacct,cpu:/third\n", SIZE_MAX, SIZE_MAX, 5);
  check ("1:cpuset:/third\n", SIZE_MAX, SIZE_MAX, 0);
}

static void
test_address_space (void)
{
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
  g_test_skip ("a sanitizer needs terabytes of address space");
#else
  struct rlimit limit, tight;
  gsize total, free_before, available;
  gsize space, left;

  g_assert_cmpint (getrlimit (RLIMIT_AS, &limit), ==, 0);
  if (limit.rlim_cur != RLIM_INFINITY) {
    g_test_skip ("there is a limit already");
    return;
  }
  dp_host_memory_size (&total, &free_before);
  dp_host_limits_address_space (&space, &left);
  g_assert_true (space == SIZE_MAX && left == SIZE_MAX);
  tight = limit;
  tight.rlim_cur = (rlim_t) 1 << 30;
  g_assert_cmpint (setrlimit (RLIMIT_AS, &tight), ==, 0);
  dp_host_limits_address_space (&space, &left);
  dp_host_memory_size (&total, &available);
  setrlimit (RLIMIT_AS, &limit);
  g_assert_cmpuint (space, ==, 1 << 30);
  g_assert_cmpuint (left, <, 1 << 30);
  g_assert_cmpuint (total, <=, 1 << 30);
  g_assert_cmpuint (available, <=, left);
#endif
}

int
main (int argc, char **argv)
{
  int failed;

  g_test_init (&argc, &argv, NULL);
  dir = g_dir_make_tmp ("dp-limits-XXXXXX", NULL);
  g_test_add_func ("/host-limits/v2", test_v2);
  g_test_add_func ("/host-limits/v1", test_v1);
  g_test_add_func ("/host-limits/address-space", test_address_space);
  failed = g_test_run ();
  g_autofree char *command = g_strdup_printf ("rm -r %s", dir);
  g_assert_true (g_spawn_command_line_sync (command, NULL, NULL, NULL, NULL));
  g_free (dir);
  return failed;
}
