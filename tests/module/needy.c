/* SPDX-License-Identifier: LGPL-2.1-or-later */
int dp_test_needed (void);
int dp_test_needy (void);

int
dp_test_needy (void)
{
  return dp_test_needed ();
}
