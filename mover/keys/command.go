// Package keys holds the commands of `estiba key`: they bring the master key to
// safety, derive from it what opens one repository, and rotate it. They read one Secret, or
// a file and nothing else; those that rotate it write that Secret, and read what the
// Repositories say. None touches a store.
//
// It must not import kopia, take a secret as an argument of a command, or put
// one into an error; secrets leave it by standard output or a file that was asked
// for, and in no other way.
package keys

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/credentials"
)

// Command returns the command "key" with all that is below it. Velero's namespace
// is the given one unless a flag says otherwise. New keys are made of random, which is crypto/rand.Reader but in tests.
func Command(namespace string, random io.Reader) *cobra.Command {
	c := &cobra.Command{
		Use: "key", Short: "Keep the master key, derive passwords from it, and rotate it",
		Long: "The master key is Secret estiba-master-key in Velero's namespace. Without it nobody can read the backups.",
	}
	c.AddCommand(exportCommand(namespace), deriveCommand(namespace), rotateCommand(namespace, random))

	return c
}

func exportCommand(namespace string) *cobra.Command {
	var (
		from   = source{fallback: namespace}
		output string
	)

	c := &cobra.Command{
		Use: "export", Args: cobra.NoArgs,
		Short: "Print the master key as a manifest to apply where it is missing",
		Long: `Print the Secret with the master key as a manifest that can be applied as it is,
also in another cluster: it has no uid and no resourceVersion, and the label that
keeps it out of Velero's backups. Keep it off the cluster, and as secret as the backups.
While the key is being rotated (estiba key rotate), the previous one goes along.

The Secret is read from the cluster of the kubeconfig, or from a file that holds a
manifest of it or the key alone; so an older export is brought into order, too.`,
		Example: `  estiba key export -o estiba-master-key.yaml
  kubectl apply -f estiba-master-key.yaml      # in the other cluster, before its first backup or restore`,
		RunE: func(c *cobra.Command, _ []string) error {
			f, err := from.read(c.Context(), c.InOrStdin())
			if err != nil {
				return err
			}

			m, err := manifest(f)
			if err != nil {
				return err
			}

			if output == "" {
				_, err = c.OutOrStdout().Write(m)
				return err
			}

			return writeNew(output, m)
		},
	}
	from.addFlags(c.Flags())
	c.Flags().StringVarP(&output, "output", "o", "", "write to this new `file`, which only its owner can read, and not to standard output")

	return c
}

func deriveCommand(namespace string) *cobra.Command {
	var (
		from     = source{fallback: namespace}
		id       string
		previous bool
	)

	c := &cobra.Command{
		Use: "derive --repository ID", Args: cobra.NoArgs,
		Short: "Print the password that the stock kopia opens a repository with",
		Long: `Print the password of one repository. It depends on the master key and the
repository's ID alone, and opens that repository only. With --key-file it needs no
cluster and no network.

The ID is the last part of the repository's path in the bucket:
PREFIX/plugins/estiba/repositories/NAMESPACE/ID/ (kubectl -n velero get erepo -o wide).

While the master key is being rotated (estiba key rotate), a repository may still be under
the previous one: kubectl get erepo -o wide shows which, and --previous takes that.`,
		Example: `  export KOPIA_PASSWORD="$(estiba key derive --repository ID --key-file estiba-master-key.yaml)"
  kopia repository connect s3 --bucket BUCKET --prefix PREFIX/plugins/estiba/repositories/NAMESPACE/ID/ ...`,
		RunE: func(c *cobra.Command, _ []string) error {
			// Nothing is read for an ID that can't be one.
			if err := credentials.CheckRepositoryID(id); err != nil {
				return fmt.Errorf("--repository: %w", err)
			}

			f, err := from.read(c.Context(), c.InOrStdin())
			if err != nil {
				return err
			}

			key := f.key
			if previous {
				key = f.previous
			}

			if key.IsZero() {
				return fmt.Errorf("--previous: there is no previous master key (key %s of the Secret)", contract.MasterKeySecretPrevious)
			}

			password, err := key.RepositoryPassword(id)
			if err != nil {
				return fmt.Errorf("password of repository %s: %w", id, err)
			}

			_, err = fmt.Fprintln(c.OutOrStdout(), password)

			return err
		},
	}
	from.addFlags(c.Flags())
	c.Flags().StringVar(&id, "repository", "", "`ID` of the repository, 26 characters")
	c.Flags().BoolVar(&previous, "previous", false, "derive from the master key before the current one")

	return c
}

// writeNew writes a file that is not there yet. What is there may be the only
// copy of another key.
func writeNew(path string, content []byte) error {
	const ownerOnly = 0o600

	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, ownerOnly)
	if err != nil {
		return fmt.Errorf("make the file of the key: %w", err)
	}

	_, err = f.Write(content)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("write the key: %w", errors.Join(err, os.Remove(path)))
	}

	return nil
}
