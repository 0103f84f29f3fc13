package store

import (
	"context"

	"github.com/kopia/kopia/repo/blob"
)

// page is a part of a listing.
type page struct {
	blobs []blob.Metadata
	// next is what the page that follows is asked for by; empty where this is the last.
	next string
}

// pager is a storage that lists page by page, so that nobody on the way to the
// worker holds more of a listing than one page: it may have millions of blobs. Each
// page is a request of its own to the layers, which repeat and watch it.
type pager interface {
	// listPage returns the first page where after is empty, or else the one that
	// follows the page that named after.
	listPage(ctx context.Context, prefix blob.ID, after string) (page, error)
}

// listPage asks st for a page. A storage that knows none gives all at once.
func listPage(ctx context.Context, st blob.Storage, prefix blob.ID, after string) (page, error) {
	if p, ok := st.(pager); ok {
		return p.listPage(ctx, prefix, after)
	}

	var all page

	err := st.ListBlobs(ctx, prefix, func(m blob.Metadata) error {
		pulseOf(ctx).beat()

		all.blobs = append(all.blobs, m)

		return context.Cause(ctx) // the layers above say what was attempted
	})

	return all, err
}

// eachPage is ListBlobs for a storage that lists by pages.
func eachPage(ctx context.Context, p pager, prefix blob.ID, callback func(blob.Metadata) error) error {
	for after := ""; ; {
		some, err := p.listPage(ctx, prefix, after)
		if err != nil {
			return err
		}

		for _, m := range some.blobs {
			if err := callback(m); err != nil {
				return err
			}
		}

		if after = some.next; after == "" {
			return nil
		}
	}
}
