package repository

import (
	"context"
	"fmt"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/format"

	"github.com/estiba-dev/estiba/mover/engine"
)

// RotateKey has the repository be opened by s.Password alone, where s.Previous opens it.
// Where s.Password opens it already, it does nothing. The contents stay as they are, and
// so do the keys that they are encrypted with: whoever has taken them keeps them.
//
// It may be cut off anywhere and repeated. At every moment exactly one of the two
// passwords opens the repository, because one write rotates them: that of
// kopia.repository. kopia would write kopia.blobcfg first, which is encrypted with the
// same key, and between the two writes neither password opens (kopia v0.23.1
// repo/format/format_change_password.go); but it does without that blob
// (format_manager.go), which is therefore removed before, and not written again.
//
// Who has the repository open meanwhile goes on for as long as kopia doesn't look at
// kopia.repository again, which it does every 15 minutes; its next look then fails with
// CodeWrongKey, and nothing that it has written is lost. Hence it is for when
// nobody works with the repository.
//
// Errors: CodeInvalidRequest where s.Previous is empty, or the repository has a setting
// that would be lost; CodeWrongKey where neither password opens it, and those of Open.
func RotateKey(ctx context.Context, s Settings) error {
	if s.Previous == "" || len(s.Password) < minSecret {
		return engine.Errorf(engine.CodeInvalidRequest, "rotate the repository's key: there is no previous one, or the new one is too short")
	}

	previous := s.Previous
	s.ReadOnly, s.ReadAhead, s.Previous = true, false, ""

	err := look(ctx, s)
	if engine.CodeOf(err) != engine.CodeWrongKey {
		return err
	}

	if err := rotate(ctx, s, previous); err != nil {
		return Explain(ctx, s.Storage, engine.CodeRepositoryDamaged, fmt.Errorf("rotate the repository's key: %w", err))
	}

	return look(ctx, s)
}

// look opens the repository anew.
func look(ctx context.Context, s Settings) error {
	r, err := openInsistently(ctx, s)
	if err != nil {
		return err
	}

	return r.Close(ctx)
}

func rotate(ctx context.Context, s Settings, previous string) error {
	now := s.Now
	if now == nil {
		now = time.Now
	}

	// What is cached on disk is not asked: what is wrapped anew must be what the store has.
	m, err := format.NewManager(ctx, oneBlob{s.Storage}, "", format.DefaultRepositoryBlobCacheDuration, previous, now)
	if err != nil {
		return fmt.Errorf("open by the previous password: %w", err)
	}

	cfg, err := m.BlobCfgBlob(ctx)
	if err != nil {
		return fmt.Errorf("read %s: %w", format.KopiaBlobCfgBlobID, err)
	}

	if cfg.IsRetentionEnabled() {
		return engine.Errorf(engine.CodeInvalidRequest,
			"the repository has a retention of blobs (%s), which would be lost: take it away with the stock kopia (kopia repository set-parameters --retention-mode none)", cfg.RetentionMode)
	}

	if err := m.ChangePassword(ctx, s.Password); err != nil {
		return fmt.Errorf("wrap the keys anew: %w", err)
	}

	return nil
}

// oneBlob is a storage to which kopia writes its settings in one blob: where it would write
// kopia.blobcfg, that is removed. It comes before kopia.repository (kopia v0.23.1
// repo/format/format_manager.go, format_change_password.go).
type oneBlob struct{ blob.Storage }

// PutBlob writes the blob, or removes kopia.blobcfg.
func (s oneBlob) PutBlob(ctx context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	if id == format.KopiaBlobCfgBlobID {
		return s.DeleteBlob(ctx, id)
	}

	return s.Storage.PutBlob(ctx, id, data, o)
}
