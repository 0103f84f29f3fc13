package keys

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/credentials"
)

func rotateCommand(namespace string, random io.Reader) *cobra.Command {
	var (
		in = source{fallback: namespace}
		r  = rotation{random: random}
	)

	c := &cobra.Command{
		Use: "rotate", Args: cobra.NoArgs,
		Short: "Rotate the master key, under all repositories",
		Long: `Put a new random master key into the Secret and keep the one before it beside it. The
controller then brings one repository after the other to the new key, each when none of
its jobs is under way; backups and restores go on. With --finish, the key before is
removed, when every repository is under the new one.

What it can't do: whoever has the key before and has copied what was in the bucket until
now, reads that for ever, and with the copied keys of a repository also what is added to it
later. Old versions of the object kopia.repository, where the bucket keeps versions, are
such copies: delete them. If the key has leaked to somebody who can read the bucket, make
new repositories under an empty prefix instead.`,
		Example: `  estiba key rotate
  estiba key export -o estiba-master-key-new.yaml   # at once: it holds both keys
  kubectl -n velero get erepo -o wide               # until KEY CURRENT is True for all
  estiba key rotate --finish`,
		RunE: func(c *cobra.Command, _ []string) error {
			to, err := in.cluster()
			if err != nil {
				return err
			}

			return r.run(c.Context(), to, c.OutOrStdout())
		},
	}
	in.addClusterFlags(c.Flags(), "")
	c.Flags().BoolVar(&r.finish, "finish", false, "remove the previous key, if every repository is under the current one")
	c.Flags().StringArrayVar(&r.without, "leave-location", nil, "`name` of a BackupStorageLocation that may be left under the previous key: what it holds can't be read without putting that back")

	return c
}

// rotation is what is asked for.
type rotation struct {
	// finish removes the previous key.
	finish bool
	// without are the locations that may be left behind.
	without []string
	random  io.Reader
}

func (r rotation) run(ctx context.Context, in *cluster, out io.Writer) error {
	secret, f, err := in.masterKey(ctx)
	if err != nil {
		return err
	}

	if r.finish && f.previous.IsZero() {
		return fmt.Errorf("there is no previous master key in Secret %s/%s: nothing is to be finished", f.namespace, secret.Name)
	}

	if !f.previous.IsZero() {
		left, err := in.left(ctx, f.key, r.without)
		if err != nil {
			return err
		}

		if len(left) > 0 {
			return stillNeeded(left)
		}
	}

	next := found{key: f.key, namespace: f.namespace}

	if !r.finish {
		next.previous = f.key

		if next.key, err = credentials.NewMasterKey(r.random); err != nil {
			return fmt.Errorf("make the new master key: %w", err)
		}
	}

	if err := in.write(ctx, secret, next.key, next.previous); err != nil {
		return err
	}

	return tell(out, f, next)
}

func stillNeeded(left []string) error {
	return errors.New("the previous master key is still needed:\n  " + strings.Join(left, "\n  ") +
		"\nwait for these (kubectl get erepo -o wide), delete the Repository objects of what is gone for good, or leave a whole location behind with --leave-location")
}

// tell says what happens next, and never a key.
func tell(out io.Writer, before, now found) error {
	was, err := before.key.Fingerprint()
	if err != nil {
		return fmt.Errorf("fingerprint of the master key: %w", err)
	}

	is, err := now.key.Fingerprint()
	if err != nil {
		return fmt.Errorf("fingerprint of the new master key: %w", err)
	}

	text := fmt.Sprintf(`The previous master key is no more in Secret %[1]s/%[2]s; the current one has fingerprint %[3]s.
Backups under the key before it can't be read without its export: keep that where an old copy of a bucket is kept.
`, now.namespace, contract.MasterKeySecret, is)

	if !now.previous.IsZero() {
		text = fmt.Sprintf(`Secret %[1]s/%[2]s holds a new master key of fingerprint %[3]s, and the previous one of fingerprint %[4]s.

EXPORT IT NOW and keep it off the cluster, beside the earlier export; without it no backup can be read:
  estiba key export -n %[1]s -o estiba-master-key-new.yaml

The controller brings one repository after the other to the new key. When all are (KEY CURRENT is True), finish:
  kubectl -n %[1]s get erepo -o wide
  estiba key rotate -n %[1]s --finish

What this can't do:
- What a holder of the previous key has copied from the bucket they read for ever, and with a copied kopia.repository
  also what is added to that repository later. Old versions of that object in the bucket are such copies: delete them.
- Read-only locations stay under the previous key: keep it as long as you read them.
- Other clusters on the same bucket need the new Secret before they can go on.
`, now.namespace, contract.MasterKeySecret, is, was)
	}

	_, err = io.WriteString(out, text)

	return err
}
