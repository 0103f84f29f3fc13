package kopiaengine

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/estiba-dev/estiba/mover/beneath"
	"github.com/estiba-dev/estiba/mover/contract"
	"github.com/estiba-dev/estiba/mover/engine"
	"github.com/estiba-dev/estiba/mover/repository"
)

// judge counts an entry that can't be restored, and lets the restore go on, where it is told to and the
// failure is the entry's own. Else it returns the error, with what there is to do.
func (w *restorer) judge(ctx context.Context, path string, err error) error {
	if err == nil || errors.Is(err, errHinted) {
		return err
	}

	reason := w.ownFault(ctx, err)

	switch {
	case reason == "" || path == "":
		return err
	case w.skip:
		w.omitted.add(reason, path)
		w.leftOut.Add(1)

		return nil
	default:
		return hinted{fmt.Errorf("%w; to restore all others, restore again with the annotations %s=%s and, for the part that is there by now, %s=%s (other files stay) or %s (they are deleted) on the Restore",
			err, contract.AnnotationOnFileError, engine.FileErrorSkip, contract.AnnotationExistingData, engine.ExistingOverwrite, engine.ExistingMirror)}
	}
}

// errHinted marks errors that say already what there is to do.
var errHinted = errors.New("hinted")

type hinted struct{ error }

// Is reports whether the error is looked for as errHinted.
func (hinted) Is(target error) bool { return target == errHinted }

// Unwrap returns the error itself.
func (h hinted) Unwrap() error { return h.error }

// ownFault returns why an entry can't be restored if others may well be: it is damaged, or something about the
// entry itself keeps it from being written. It is empty where the store, the volume or we are at fault.
func (w *restorer) ownFault(ctx context.Context, err error) engine.OmissionReason {
	switch engine.CodeOf(repository.Explain(ctx, w.storage, engine.CodeRepositoryDamaged, err)) {
	case engine.CodeRepositoryDamaged:
		return engine.OmittedDamaged
	case engine.CodeTargetUnwritable:
		if slices.ContainsFunc(entrysOwn, func(own error) bool { return errors.Is(err, own) }) {
			return engine.OmittedUnwritable
		}
	default:
	}

	return ""
}

// entrysOwn are the errors of writing that say something of one entry: it is immutable, has a name or a size that
// the file system can't hold, or something stands in its way. Those of disks, servers and full volumes are not among them.
var entrysOwn = []error{
	unix.EPERM, unix.EACCES, unix.EINVAL, unix.ENAMETOOLONG, unix.EILSEQ, unix.EISDIR, unix.ENOTDIR, unix.ENOTEMPTY, unix.EEXIST,
	unix.ELOOP, unix.ETXTBSY, unix.EFBIG, unix.EOVERFLOW, unix.EOPNOTSUPP,
	beneath.ErrMountPoint, beneath.ErrAttrs, beneath.ErrBusy, beneath.ErrKind, beneath.ErrChanged, beneath.ErrName,
}

// nothing is the error of a restore that left everything out: what keeps all entries from being written is no
// fault of one of them.
func (w *restorer) nothing() error {
	left := w.leftOut.Load()
	if left == 0 || w.count.files.Load() > 0 {
		return nil
	}

	o := w.omitted.list()

	code := engine.CodeTargetUnwritable
	if slices.ContainsFunc(o, func(o engine.Omission) bool { return o.Reason == engine.OmittedDamaged }) {
		code = engine.CodeRepositoryDamaged
	}

	return engine.Errorf(code, "restore volume: no file could be restored, and %d entries were left out, such as %s (%s)",
		left, o[0].Examples[0], o[0].Reason)
}
