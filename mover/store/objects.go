package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/store/settings"
)

// The answers of Objects that say nothing about the store's health.
var (
	// ErrObjectNotFound: there is no object of that path.
	ErrObjectNotFound = errors.New("object not found")
	// ErrObjectExists: there is an object of that path already, with another content.
	ErrObjectExists = errors.New("object exists")
)

// MaxObjectSize is the largest object that Get reads, in bytes.
const MaxObjectSize = 16 << 20

// Listing is what lies directly in a folder: names without the folder and without slashes, sorted.
type Listing struct {
	Folders []string
	Files   []string
}

// objectProvider is what a provider must do for Objects. Paths are clean,
// relative to the bucket or root, and folders end with a slash.
type objectProvider interface {
	list(ctx context.Context, folder string) (Listing, error)
	get(ctx context.Context, path string) ([]byte, error)
	exists(ctx context.Context, path string) (bool, error)
	// put fails with ErrObjectExists when onlyNew and the path is taken.
	put(ctx context.Context, path string, content []byte, onlyNew bool) error
}

// Objects are the small files of a location outside the repositories: what the
// controller reads and writes itself. All paths are relative to the location's
// prefix, with slashes; whatever contains an empty part, "." or ".." is
// refused. Errors are *engine.Error, or wrap ErrObjectNotFound or
// ErrObjectExists. It is safe for concurrent use.
type Objects struct {
	provider objectProvider
	prefix   string
	readOnly bool
	renew    *renewing
	retry    *retrying
	watch    *watched
}

// OpenObjects opens a location's small files. An S3 store is not contacted
// before the first request. Of the options, limits and counters have no effect.
func OpenObjects(s settings.Settings, source settings.Source, o Options) (*Objects, error) {
	if err := s.Validate(); err != nil {
		return nil, engine.Errorf(engine.CodeInvalidRequest, "open objects: %w", err)
	}

	o = o.withDefaults()

	objects := &Objects{
		readOnly: s.ReadOnly || o.ReadOnly,
		retry:    newRetrying(nil, o),
		watch:    newWatched(nil, o),
	}

	if s.Prefix != "" {
		objects.prefix = s.Prefix + "/"
	}

	if s.Kind == settings.Filesystem {
		objects.provider = &fileObjects{root: s.Path}

		return objects, nil
	}

	st, err := openS3(s, source, "", o.Clock.Now)
	if err != nil {
		return nil, err
	}

	objects.provider = &s3Objects{st}
	objects.renew = &renewing{provider: st}

	return objects, nil
}

// List returns what lies directly in folder; a folder that does not exist is empty. The empty folder is the location's own.
func (o *Objects) List(ctx context.Context, folder string) (l Listing, err error) {
	full := o.prefix

	if folder = strings.TrimSuffix(folder, "/"); folder != "" {
		if full, err = o.path(folder); err != nil {
			return Listing{}, err
		}

		full += "/"
	}

	return object(ctx, o, "list folder "+full, func(ctx context.Context) (Listing, error) {
		return o.provider.list(ctx, full)
	})
}

// Get reads an object of at most MaxObjectSize.
func (o *Objects) Get(ctx context.Context, path string) ([]byte, error) {
	full, err := o.path(path)
	if err != nil {
		return nil, err
	}

	return object(ctx, o, "get object "+full, func(ctx context.Context) ([]byte, error) {
		return o.provider.get(ctx, full)
	})
}

// Exists reports whether there is an object.
func (o *Objects) Exists(ctx context.Context, path string) (bool, error) {
	full, err := o.path(path)
	if err != nil {
		return false, err
	}

	return object(ctx, o, "look for object "+full, func(ctx context.Context) (bool, error) {
		return o.provider.exists(ctx, full)
	})
}

// Put writes an object whole, in place of what is there.
func (o *Objects) Put(ctx context.Context, path string, content []byte) error {
	return o.put(ctx, path, content, false)
}

// PutIfAbsent writes an object whole where there is none. It succeeds, too,
// where one of the very same content is there already, and fails with ErrObjectExists
// otherwise. Two writers at a time are kept apart by the store's own means
// (If-None-Match, link); an S3 server without them is only looked at first.
func (o *Objects) PutIfAbsent(ctx context.Context, path string, content []byte) error {
	err := o.put(ctx, path, content, true)
	if !errors.Is(err, ErrObjectExists) {
		return err
	}

	// It may be our own, of an attempt whose answer was lost.
	there, getErr := o.Get(ctx, path)
	if getErr != nil {
		return getErr
	}

	if bytes.Equal(there, content) {
		return nil
	}

	return err
}

func (o *Objects) put(ctx context.Context, path string, content []byte, onlyNew bool) error {
	full, err := o.path(path)
	if err != nil {
		return err
	}

	if o.readOnly {
		return engine.Errorf(engine.CodeStoreReadOnly, "put object %s: the store is opened for reading only", full)
	}

	_, err = object(ctx, o, "put object "+full, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, o.provider.put(ctx, full, content, onlyNew)
	})

	return err
}

func (o *Objects) path(path string) (string, error) {
	if path == "" {
		return "", engine.Errorf(engine.CodeInvalidRequest, "no object is named")
	}

	if err := (settings.Settings{Kind: settings.Filesystem, Path: "/", Prefix: path}).Validate(); err != nil {
		return "", engine.Errorf(engine.CodeInvalidRequest, "path of an object: %w", err)
	}

	return o.prefix + path, nil
}

// object runs a request with what every request needs: repetition, credentials
// that are read again, and the watch.
func object[T any](ctx context.Context, o *Objects, what string, request func(context.Context) (T, error)) (value T, err error) {
	attempt := func() error {
		value, err = answer(ctx, o.watch, request)

		return err
	}

	err = o.retry.do(ctx, what, func() error {
		if o.renew == nil {
			return attempt()
		}

		return o.renew.do(attempt)
	})
	if err != nil {
		var none T

		if errors.Is(err, ErrObjectNotFound) || errors.Is(err, ErrObjectExists) {
			err = fmt.Errorf("%s: %w", what, err)
		}

		return none, err
	}

	return value, nil
}
