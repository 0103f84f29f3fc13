package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/kopia/kopia/repo/blob"
	"github.com/kopia/kopia/repo/blob/sharded"
	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/store/settings"
)

// fileStorage keeps the blobs of one repository in a folder, in the layout of
// kopia's own file-system storage, so that the stock kopia opens the repository.
//
// That storage is not used: it reaches blobs by paths, and so through any link in
// the folder; it opens whatever lies there, be it a pipe that nobody writes to; it
// syncs no folders; and it repeats for itself, without regard to the context.
type fileStorage struct {
	blob.DefaultProviderImplementation

	folder   *folder
	shards   *sharded.Parameters
	readOnly bool
	now      func() time.Time
}

// openFilesystem opens the folder of prefix. The root must exist (an NFS mount
// that is missing must not be mistaken for an empty store); the folders below
// it are made, unless the store is read-only. The folder stays open, so that what
// is mounted or unmounted over it later on is no part of this storage.
func openFilesystem(s settings.Settings, prefix string, now func() time.Time) (*fileStorage, error) {
	at, err := openRoot(s.Path)
	if err != nil {
		return nil, fileError(fmt.Errorf("open the store's folder: %w", err))
	}

	for part := range strings.SplitSeq(strings.Trim(prefix, "/"), "/") {
		below, err := at.child(part, !s.ReadOnly)
		at.close()

		if errors.Is(err, fs.ErrNotExist) {
			return nil, engine.Errorf(engine.CodeRepositoryNotFound, "open the repository's folder: %w", err)
		}

		if err != nil {
			return nil, fileError(fmt.Errorf("open the repository's folder: %w", err))
		}

		at = below
	}

	st := &fileStorage{folder: at, readOnly: s.ReadOnly, now: now}
	if st.shards, err = shardsOf(at, s.ReadOnly); err != nil {
		at.close()

		return nil, fileError(err)
	}

	return st, nil
}

// Close closes the folder; requests under way keep it until they end.
func (s *fileStorage) Close(context.Context) error {
	s.folder.close()

	return nil
}

const (
	// maxShardsFile bounds what is read of kopia's file about its folders, in bytes.
	maxShardsFile = 64 << 10
	// blobEnding is that of blobs that are whole.
	blobEnding = sharded.CompleteBlobSuffix
)

// shardsOf reads how blobs are spread over folders. A new repository is spread as
// kopia does it; one without the file, which is only read, as kopia did it once.
func shardsOf(at *folder, readOnly bool) (*sharded.Parameters, error) {
	file, _, err := at.open(sharded.ParametersFile)
	if errors.Is(err, fs.ErrNotExist) {
		return newShards(at, readOnly)
	}

	if err != nil {
		return nil, err
	}

	defer file.Close() //nolint:errcheck // opened for reading only

	p := new(sharded.Parameters)
	if err := p.Load(io.LimitReader(file, maxShardsFile)); err != nil {
		return nil, engine.Errorf(engine.CodeRepositoryDamaged, "read %s: %w", file.Name(), err)
	}

	lists := [][]int{p.DefaultShards}
	for _, o := range p.Overrides {
		lists = append(lists, o.Shards)
	}

	for _, sizes := range lists {
		if slices.ContainsFunc(sizes, func(n int) bool { return n < 1 || n > maxBlobID }) {
			return nil, engine.Errorf(engine.CodeRepositoryDamaged, "read %s: sizes %v are not between 1 and %d", file.Name(), sizes, maxBlobID)
		}
	}

	return p, nil
}

func newShards(at *folder, readOnly bool) (*sharded.Parameters, error) {
	if readOnly {
		return sharded.DefaultParameters([]int{3, 3}), nil
	}

	p := sharded.DefaultParameters([]int{1, 3})

	return p, at.put(sharded.ParametersFile, p.Save)
}

// place opens the folder of a blob, and returns its name there. It is the caller's to close.
func (s *fileStorage) place(id blob.ID, wanted bool) (*folder, string, error) {
	where, rest := s.shards.GetShardDirectoryAndBlob("", id)

	at, err := s.folder.again()
	if err != nil {
		return nil, "", err
	}

	for part := range strings.SplitSeq(where, "/") {
		if part == "" {
			continue
		}

		below, err := at.child(part, wanted)
		at.close()

		if err != nil {
			return nil, "", err
		}

		at = below
	}

	return at, string(rest) + blobEnding, nil
}

func absent(id blob.ID, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("blob %s: %w", id, blob.ErrBlobNotFound)
	}

	return fileError(err)
}

func (s *fileStorage) GetBlob(ctx context.Context, id blob.ID, offset, length int64, out blob.OutputBuffer) error {
	out.Reset()

	if err := ctx.Err(); err != nil {
		return canceled(ctx, "read file")
	}

	at, name, err := s.place(id, false)
	if err != nil {
		return absent(id, err)
	}

	defer at.close()

	file, size, err := at.open(name)
	if err != nil {
		return absent(id, err)
	}

	defer file.Close() //nolint:errcheck // opened for reading only

	if offset < 0 || length >= 0 && offset+length > size {
		return fmt.Errorf("range %d+%d of the %d bytes of blob %s: %w", offset, length, size, id, blob.ErrInvalidRange)
	}

	if length < 0 {
		offset, length = 0, size
	}

	if err := makeRoom(out, length); err != nil {
		return err
	}

	n, err := io.Copy(out, io.NewSectionReader(file, offset, length))
	if err != nil {
		return fileError(fmt.Errorf("read file %s: %w", file.Name(), err))
	}

	return blob.EnsureLengthExactly(int(n), length) // kopia's own sentinel
}

func (s *fileStorage) GetMetadata(_ context.Context, id blob.ID) (blob.Metadata, error) {
	at, name, err := s.place(id, false)
	if err != nil {
		return blob.Metadata{}, absent(id, err)
	}

	defer at.close()

	info, err := at.statFile(name)
	if err != nil {
		return blob.Metadata{}, absent(id, err)
	}

	return metadataOf(id, info), nil
}

func metadataOf(id blob.ID, info unix.Stat_t) blob.Metadata {
	return blob.Metadata{BlobID: id, Length: info.Size, Timestamp: time.Unix(info.Mtim.Unix())}
}

func (s *fileStorage) PutBlob(_ context.Context, id blob.ID, data blob.Bytes, o blob.PutOptions) error {
	switch {
	case o.HasRetentionOptions():
		return fmt.Errorf("retention: %w", blob.ErrUnsupportedPutBlobOption)
	case o.DoNotRecreate:
		return fmt.Errorf("do-not-recreate: %w", blob.ErrUnsupportedPutBlobOption)
	case !o.SetModTime.IsZero():
		return blob.ErrSetTimeUnsupported
	}

	at, name, err := s.place(id, true)
	if err != nil {
		return fileError(err)
	}

	defer at.close()

	err = at.put(name, func(w io.Writer) error {
		n, err := data.WriteTo(w)
		if err == nil && n != int64(data.Length()) {
			err = io.ErrShortWrite
		}

		return err // put says what was attempted
	})
	if err != nil || o.GetModTime == nil {
		return fileError(err)
	}

	info, err := at.statFile(name)
	if err != nil {
		return fileError(err)
	}

	*o.GetModTime = metadataOf(id, info).Timestamp

	return nil
}

func (s *fileStorage) DeleteBlob(_ context.Context, id blob.ID) error {
	at, name, err := s.place(id, false)
	if err == nil {
		defer at.close()

		err = at.remove(name)
	}

	if errors.Is(err, fs.ErrNotExist) {
		return nil // what is gone is gone
	}

	return fileError(err)
}

func (s *fileStorage) GetCapacity(context.Context) (blob.Capacity, error) {
	var st unix.Statfs_t

	err := s.folder.call("look at the file system of", ".", func(fd int) error { return unix.Fstatfs(fd, &st) })
	if err != nil {
		return blob.Capacity{}, fileError(err)
	}

	return blob.Capacity{SizeB: st.Blocks * uint64(st.Bsize), FreeB: st.Bavail * uint64(st.Bsize)}, nil
}

// ConnectionInfo names the storage; it holds nothing to connect by.
func (s *fileStorage) ConnectionInfo() blob.ConnectionInfo {
	return blob.ConnectionInfo{Type: storageType, Config: &connectionConfig{}}
}

func (s *fileStorage) DisplayName() string { return "folder " + s.folder.file.Name() }

// fileError sets the code of a file operation's failure.
func fileError(err error) error {
	var coded *engine.Error

	switch {
	case err == nil, expected(err), errors.As(err, &coded):
		return err
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return &engine.Error{Code: engine.CodeCanceled, Err: err}
	case errors.Is(err, errOdd):
		return &engine.Error{Code: engine.CodeRepositoryDamaged, Err: err}
	case errors.Is(err, syscall.EROFS):
		return &engine.Error{Code: engine.CodeStoreReadOnly, Err: err}
	case errors.Is(err, fs.ErrPermission):
		return &engine.Error{Code: engine.CodeCredentialsInvalid, Err: err}
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return &engine.Error{Code: engine.CodeStoreFull, Err: err}
	default:
		return &engine.Error{Code: engine.CodeStoreUnavailable, Err: err}
	}
}
