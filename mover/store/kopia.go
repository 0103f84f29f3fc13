package store

import (
	"context"
	"sync"

	"github.com/kopia/kopia/repo/blob"

	"github.com/estiba-dev/estiba/mover/engine"
)

// storageType is the name of our storage in a kopia configuration file.
const storageType = "estiba"

// connectionConfig is what a kopia configuration file holds of our storage: nothing.
type connectionConfig struct{}

type carriedKey struct{}

// registerType makes our type known to kopia, whose table of types is global and may be written once only.
var registerType = sync.OnceFunc(func() { blob.AddSupportedStorage(storageType, connectionConfig{}, carried) })

// Carry returns a context under which kopia's repo.Connect and repo.Open find st.
//
// kopia's only way to open a repository goes through a configuration file that
// names a type of storage, which kopia then makes by itself. Ours is made of the
// context of that very call: the file holds {"type":"estiba","config":{}} and
// nothing to connect by. st must outlive the repository: closing the
// repository does not close it.
func Carry(ctx context.Context, st blob.Storage) context.Context {
	registerType()

	return context.WithValue(ctx, carriedKey{}, st)
}

func carried(ctx context.Context, _ *connectionConfig, _ bool) (blob.Storage, error) {
	st, ok := ctx.Value(carriedKey{}).(blob.Storage)
	if !ok {
		return nil, engine.Errorf(engine.CodeInternal, "the context that kopia opens a repository with carries no storage")
	}

	return kept{st}, nil
}

// kept leaves the storage open when kopia closes a repository: repo.Connect
// opens and closes one only to see that it can.
type kept struct{ blob.Storage }

func (kept) Close(context.Context) error { return nil }

// ConnectionInfo names our type, whatever the storage beneath calls itself.
func (kept) ConnectionInfo() blob.ConnectionInfo {
	return blob.ConnectionInfo{Type: storageType, Config: &connectionConfig{}}
}
