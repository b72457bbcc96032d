/* SPDX-License-Identifier: LGPL-2.1-or-later */
int dp_test_needed (void);

int
dp_test_needed (void)
{
  return 0;
}
