/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "host_limits.h"

#include <dirent.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* What version 1 calls no limit is near 2^63. */
#define NO_LIMIT ((unsigned long long) 1 << 60)

/* The files of a version. */
typedef struct
{
  const char *limit, *usage;
  const char *caches[2];        /* keys of memory.stat, with the groups below */
} MemoryFiles;

static const MemoryFiles memory_v1 = { "memory.limit_in_bytes", "memory.usage_in_bytes", { "total_inactive_file", "total_active_file" } };
static const MemoryFiles memory_v2 = { "memory.max", "memory.current", { "inactive_file", "active_file" } };

static FILE *
open_in (const char *dir, const char *name)
{
  char path[PATH_MAX];

  return snprintf (path, sizeof path, "%s/%s", dir, name) < (int) sizeof path ? fopen (path, "re") : NULL;
}

/* Up to two whole numbers of a file; how many there were. "max" is none. */
static int
read_numbers (const char *dir, const char *name, long long *a, long long *b)
{
  FILE *f = open_in (dir, name);
  int n = f ? fscanf (f, "%lld %lld", a, b) : 0;

  if (f)
    fclose (f);
  return n > 0 ? n : 0;
}

static size_t
read_stat (const char *dir, const char *const keys[2])
{
  FILE *f = open_in (dir, "memory.stat");
  unsigned long long value;
  size_t sum = 0;
  char key[64];

  while (f && fscanf (f, "%63s %llu", key, &value) == 2)
    if (strcmp (key, keys[0]) == 0 || strcmp (key, keys[1]) == 0)
      sum += value;
  if (f)
    fclose (f);
  return sum;
}

static void
take_memory (const char *dir, const MemoryFiles *files, DpCgroupLimits *limits)
{
  long long limit, usage, none;
  size_t caches, left;

  if (read_numbers (dir, files->limit, &limit, &none) < 1 || limit < 0 || (unsigned long long) limit >= NO_LIMIT
      || read_numbers (dir, files->usage, &usage, &none) < 1)
    return;
  caches = read_stat (dir, files->caches);
  usage = usage > (long long) caches ? usage - caches : 0;
  left = limit > usage ? limit - usage : 0;
  limits->memory = (size_t) limit < limits->memory ? (size_t) limit : limits->memory;
  limits->memory_left = left < limits->memory_left ? left : limits->memory_left;
}

static void
take_quota (long long quota, long long period, DpCgroupLimits *limits)
{
  long long processors = quota > 0 && period > 0 ? (quota + period - 1) / period : 0;

  if (processors > 0 && processors < INT_MAX && (limits->processors == 0 || processors < limits->processors))
    limits->processors = processors;
}

/* A group and those above it: `base` is where the tree begins. */
static void
take_tree (const char *base, const char *group, bool v2, bool memory, bool cpu, DpCgroupLimits *limits)
{
  char path[PATH_MAX];
  size_t root = strlen (base);

  if (snprintf (path, sizeof path, "%s%s", base, group) >= (int) sizeof path)
    return;
  for (;;) {
    long long quota, period;

    if (memory)
      take_memory (path, v2 ? &memory_v2 : &memory_v1, limits);
    if (cpu && v2 && read_numbers (path, "cpu.max", &quota, &period) == 2)
      take_quota (quota, period, limits);
    if (cpu && !v2 && read_numbers (path, "cpu.cfs_quota_us", &quota, &period) == 1
        && read_numbers (path, "cpu.cfs_period_us", &period, &(long long) { 0 }) == 1)
      take_quota (quota, period, limits);
    if (strlen (path) <= root)
      return;
    *strrchr (path, '/') = 0;
  }
}

static bool
has_controller (const char *controllers, const char *name)
{
  size_t n = strlen (name);

  for (const char *at = controllers; (at = strstr (at, name)); at += n)
    if ((at == controllers || at[-1] == ',') && (at[n] == 0 || at[n] == ','))
      return true;
  return false;
}

/* The controllers of a line are mounted under their names, in any order: cpu,cpuacct may be in a folder cpuacct,cpu. */
static void
take_v1 (const char *root, const char *controllers, const char *group, DpCgroupLimits *limits)
{
  DIR *dir = opendir (root);
  char base[PATH_MAX];

  for (struct dirent *d; dir && (d = readdir (dir));) {
    bool memory = has_controller (controllers, "memory") && has_controller (d->d_name, "memory");
    bool cpu = has_controller (controllers, "cpu") && has_controller (d->d_name, "cpu");

    if ((memory || cpu) && snprintf (base, sizeof base, "%s/%s", root, d->d_name) < (int) sizeof base)
      take_tree (base, group, false, memory, cpu, limits);
  }
  if (dir)
    closedir (dir);
}

void
dp_host_limits_cgroup (const char *list, const char *root, DpCgroupLimits *limits)
{
  FILE *f = fopen (list, "re");
  char line[PATH_MAX];

  *limits = (DpCgroupLimits) { SIZE_MAX, SIZE_MAX, 0 };
  /* number:controllers:/path; of version 2 no controllers */
  while (f && fgets (line, sizeof line, f)) {
    char *controllers = strchr (line, ':'), *group = controllers ? strchr (controllers + 1, ':') : NULL;

    if (group == NULL)
      continue;
    *group++ = 0;
    controllers++;
    group[strcspn (group, "\n")] = 0;
    if (strcmp (group, "/") == 0)
      *group = 0;
    if (*controllers == 0)
      take_tree (root, group, true, true, true, limits);
    else
      take_v1 (root, controllers, group, limits);
  }
  if (f)
    fclose (f);
}

void
dp_host_limits_of_process (DpCgroupLimits *limits)
{
  dp_host_limits_cgroup ("/proc/self/cgroup", "/sys/fs/cgroup", limits);
}

void
dp_host_limits_address_space (size_t *total, size_t *left)
{
  struct rlimit limit;
  unsigned long long pages = 0;
  FILE *f;

  *total = *left = SIZE_MAX;
  if (getrlimit (RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
    return;
  *total = *left = limit.rlim_cur;
  f = fopen ("/proc/self/statm", "re");
  if (f && fscanf (f, "%llu", &pages) == 1) {
    size_t used = pages * sysconf (_SC_PAGESIZE);

    *left = *total > used ? *total - used : 0;
  }
  if (f)
    fclose (f);
}
