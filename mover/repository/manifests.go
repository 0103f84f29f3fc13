package repository

import (
	"context"
	"fmt"
	"os"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/content"
	"github.com/kopia/kopia/repo/content/index"
	"github.com/kopia/kopia/repo/manifest"
)

// ignoreMalformed has kopia leave out what it can't read of the manifests, instead of finding none
// at all (v0.23.1 repo/manifest/committed_manifest_manager.go). It is the process's, which
// is why it is set as long as a damaged repository is open and not longer.
const ignoreMalformed = "KOPIA_IGNORE_MALFORMED_MANIFEST_CONTENTS"

// ReadManifests looks whether the manifests can be read, all of them, and has the repository do
// without those that are damaged: see Unlisted.
func (r *Repository) ReadManifests(ctx context.Context) error {
	broken, err := r.BrokenManifests(ctx)
	if err != nil || len(broken) == 0 {
		return err
	}

	r.unlisted = len(broken)

	if err := os.Setenv(ignoreMalformed, "1"); err != nil {
		return fmt.Errorf("have kopia read what it can: %w", err)
	}

	return nil
}

// Unlisted returns how many contents with manifests can't be read: who finds no snapshot can't
// know that there is none.
func (r *Repository) Unlisted() int { return r.unlisted }

// BrokenManifests returns the contents with manifests that are damaged in the store, or
// not there. It asks for them only if the manifests can't be loaded as they are.
func (r *Repository) BrokenManifests(ctx context.Context) ([]content.Info, error) {
	_, err := r.FindManifests(ctx, map[string]string{})
	if err == nil || ctx.Err() != nil || StorageErr(r.aside) != nil {
		return nil, err
	}

	r.ForgetCached() // What can't be read is not to be read from there.

	packs := map[blob.ID][]content.Info{}

	if err := r.ContentReader().IterateContents(ctx, content.IterateOptions{Range: index.PrefixRange(manifest.ContentPrefix)},
		func(i content.Info) error {
			packs[i.PackBlobID] = append(packs[i.PackBlobID], i)

			return nil
		}); err != nil {
		return nil, fmt.Errorf("go through the index: %w", err)
	}

	var broken []content.Info

	for pack, contents := range packs {
		bad, err := r.Seals().Broken(ctx, pack, contents)
		if err != nil {
			return nil, err
		}

		broken = append(broken, bad...)
	}

	return broken, nil
}
