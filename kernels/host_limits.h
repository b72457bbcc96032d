/* SPDX-License-Identifier: LGPL-2.1-or-later
 *
 * host_limits.h: what this process may use of the machine: the limits of its cgroup (containers, systemd, batch systems; version 1 and
 * 2) and `ulimit -v`. A process that passes a cgroup's limit of memory is killed; one that passes its quota of processor time stands still for
 * the rest of each period.
 *
 * Thread-safety: from anywhere.
 */
#pragma once

#include <stddef.h>

typedef struct
{
  size_t memory;                /* bytes that the group may have; SIZE_MAX: no limit */
  size_t memory_left;           /* of these; what the system caches of files counts as left, as in MemAvailable */
  int processors;               /* that the quota is worth, rounded up; 0: no quota */
} DpCgroupLimits;

/** The tightest limits of the groups named by `list` (/proc/self/cgroup) and of all above them, under `root` (/sys/fs/cgroup). Files that
 *  are missing set no limit. */
void dp_host_limits_cgroup (const char *list, const char *root, DpCgroupLimits *limits);

/** The same of this process. */
void dp_host_limits_of_process (DpCgroupLimits *limits);

/** Bytes of address space that this process may have (`ulimit -v`) and has left; SIZE_MAX: no limit. */
void dp_host_limits_address_space (size_t *total, size_t *left);
