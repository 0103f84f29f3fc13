package keys

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/pflag"

	"github.com/estiba-dev/estiba/mover/credentials"
)

const (
	// stdin is what names the standard input in place of a file.
	stdin = "-"
	// maxFile is more than any manifest of a Secret has, in bytes.
	maxFile = 1 << 20
	// requestTimeout bounds the one request to the API server.
	requestTimeout = 30 * time.Second
)

// source says where the master key is.
type source struct {
	// file is a path or stdin; empty for the cluster.
	file string
	// kubeconfig and context choose the cluster; empty for what kubectl would take.
	kubeconfig, context string
	// namespace is Velero's; empty for that of the file, or else fallback.
	namespace, fallback string
}

// found is the master key and the one before it, zero if none is kept, and the namespace that their Secret belongs to.
type found struct {
	key, previous credentials.MasterKey
	namespace     string
}

func (s *source) addFlags(f *pflag.FlagSet) {
	f.StringVar(&s.file, "key-file", "", "read the key from this `file` (a manifest of the Secret, or the key alone; - is standard input) and not from a cluster")
	s.addClusterFlags(f, ", or that of the file")
}

func (s *source) addClusterFlags(f *pflag.FlagSet, orElse string) {
	f.StringVar(&s.kubeconfig, "kubeconfig", "", "`file` that says where the cluster is; the default is kubectl's, or the pod's own account")
	f.StringVar(&s.context, "context", "", "`name` of the context in the kubeconfig")
	f.StringVarP(&s.namespace, "namespace", "n", "", "Velero's `namespace`; the default is "+s.fallback+" ($VELERO_NAMESPACE)"+orElse)
}

func (s *source) read(ctx context.Context, in io.Reader) (found, error) {
	if s.file == "" {
		c, err := s.cluster()
		if err != nil {
			return found{}, err
		}

		_, f, err := c.masterKey(ctx)

		return f, err
	}

	content, err := s.content(in)
	if err != nil {
		return found{}, err
	}

	f, err := parse(content)
	if err != nil {
		return found{}, fmt.Errorf("%s: %w", s.place(), err)
	}

	f.namespace = cmp.Or(s.namespace, f.namespace, s.fallback)

	return f, nil
}

// place names the file for people.
func (s *source) place() string {
	if s.file == stdin {
		return "standard input"
	}

	return s.file
}

func (s *source) content(in io.Reader) (content []byte, err error) {
	if s.file != stdin {
		f, err := os.Open(s.file)
		if err != nil {
			return nil, fmt.Errorf("read the key: %w", err)
		}

		defer f.Close() //nolint:errcheck // it was read only

		in = f
	}

	content, err = io.ReadAll(io.LimitReader(in, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read the key from %s: %w", s.place(), err)
	}

	if len(content) > maxFile {
		return nil, fmt.Errorf("read the key from %s: it is larger than any manifest of a Secret", s.place())
	}

	return content, nil
}
