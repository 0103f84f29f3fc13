package contract

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// RecordVersion is the version of the records that this release writes.
const RecordVersion = 1

// ErrRecord is what every error about a record that can't be read wraps.
var ErrRecord = errors.New("unreadable record")

// Owner names a Velero object as it was in the cluster that wrote the record.
type Owner struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// Repository says where a snapshot lies. The backup storage location is not
// part of it: a restore uses the one that Velero's Backup object names there.
type Repository struct {
	// Namespace whose volumes the repository holds.
	Namespace string `json:"namespace"`
	// ID of the repository.
	ID string `json:"id"`
	// Path of the repository below the location's prefix, as RepositoryPath gives it.
	Path string `json:"path"`
}

// Volume says where the data of one volume is to be found.
type Volume struct {
	// Job is the name of the VolumeBackup, and the value of the snapshot's tag TagJob.
	Job string `json:"job"`
	// Kind of the volume: PersistentVolumeClaim, EmptyDir, NFS, CSI or HostPath.
	Kind string `json:"kind"`
	// Claim is the name of the PersistentVolumeClaim behind the volume, if any.
	Claim string `json:"claim,omitempty"`
	// Source is the path that the chain of snapshots follows.
	Source string `json:"source"`
	// Repository that holds the snapshot.
	Repository Repository `json:"repository"`
}

// PodRecord is the value of AnnotationVolumes: which of the pod's volumes were
// asked for, by their names in spec.volumes.
type PodRecord struct {
	Version int               `json:"version"`
	Backup  Owner             `json:"backup"`
	Volumes map[string]Volume `json:"volumes"`
	// Unprotected are the volumes that were to be moved and were not asked for,
	// with the reason: a restore must say that their data isn't in the backup. A
	// release that doesn't know the field restores the pod all the same.
	Unprotected map[string]string `json:"unprotected,omitempty"`
}

// ClaimRecord is the value of AnnotationVolume.
type ClaimRecord struct {
	Version int    `json:"version"`
	Backup  Owner  `json:"backup"`
	Volume  Volume `json:"volume"`
	// PersistentVolume says how the claim's volume was. A release that doesn't know
	// the field, or doesn't find it, restores the claim all the same.
	PersistentVolume *PersistentVolume `json:"persistentVolume,omitempty"`
}

// PersistentVolume is what of a claim's volume is put back on the new one.
type PersistentVolume struct {
	// ReclaimPolicy is its spec.persistentVolumeReclaimPolicy.
	ReclaimPolicy string `json:"reclaimPolicy,omitempty"`
	// Labels of the PersistentVolume, all of them.
	Labels map[string]string `json:"labels,omitempty"`
}

// UnprotectedRecord is the value of AnnotationVolumeUnprotected: the claim's volume was to be moved and was not asked
// for. A restore must say that its data isn't in the backup.
type UnprotectedRecord struct {
	Version int   `json:"version"`
	Backup  Owner `json:"backup"`
	// Reason in a word, and what it is about, for people.
	Reason string `json:"reason"`
}

// GateRecord is the value of AnnotationRestore: which job fills which of the
// restored pod's volumes.
type GateRecord struct {
	Version int               `json:"version"`
	Restore Owner             `json:"restore"`
	Jobs    map[string]string `json:"jobs"`
	// VeleroNamespace is where the Restore and the jobs are: a cluster may hold more than one install, and only
	// the daemons of this one may speak to the gate. It is empty in records of releases that didn't know it.
	VeleroNamespace string `json:"veleroNamespace,omitempty"`
	// StandIn is the UID of the owner that the pod was given where its namespace admits none without; it goes when
	// the pod's controller has adopted it. It is empty for a pod that was given none.
	StandIn string `json:"standIn,omitempty"`
}

// Of reports whether the gate waits for jobs of the install whose Velero has the namespace.
func (r GateRecord) Of(namespace string) bool {
	return r.VeleroNamespace == "" || r.VeleroNamespace == namespace
}

// Encode returns the annotation's value.
func (r PodRecord) Encode() (string, error) { r.Version = RecordVersion; return encode(r) }

// Encode returns the annotation's value.
func (r ClaimRecord) Encode() (string, error) { r.Version = RecordVersion; return encode(r) }

// Encode returns the annotation's value.
func (r GateRecord) Encode() (string, error) { r.Version = RecordVersion; return encode(r) }

// Encode returns the annotation's value.
func (r UnprotectedRecord) Encode() (string, error) { r.Version = RecordVersion; return encode(r) }

// DecodeUnprotectedRecord reads the value of AnnotationVolumeUnprotected. Errors wrap ErrRecord.
func DecodeUnprotectedRecord(s string) (UnprotectedRecord, error) {
	var r UnprotectedRecord
	if err := decode(s, &r, func() int { return r.Version }); err != nil {
		return UnprotectedRecord{}, fmt.Errorf("annotation %s: %w", AnnotationVolumeUnprotected, err)
	}

	return r, nil
}

// DecodePodRecord reads the value of AnnotationVolumes. Errors wrap ErrRecord.
func DecodePodRecord(s string) (PodRecord, error) {
	var r PodRecord
	if err := decode(s, &r, func() int { return r.Version }); err != nil {
		return PodRecord{}, fmt.Errorf("annotation %s: %w", AnnotationVolumes, err)
	}

	for name, v := range r.Volumes {
		if err := v.validate(); err != nil {
			return PodRecord{}, fmt.Errorf("annotation %s: volume %q: %w", AnnotationVolumes, name, err)
		}
	}

	return r, nil
}

// DecodeClaimRecord reads the value of AnnotationVolume. Errors wrap ErrRecord.
func DecodeClaimRecord(s string) (ClaimRecord, error) {
	var r ClaimRecord
	if err := decode(s, &r, func() int { return r.Version }); err != nil {
		return ClaimRecord{}, fmt.Errorf("annotation %s: %w", AnnotationVolume, err)
	}

	if err := r.Volume.validate(); err != nil {
		return ClaimRecord{}, fmt.Errorf("annotation %s: %w", AnnotationVolume, err)
	}

	return r, nil
}

// DecodeGateRecord reads the value of AnnotationRestore. Errors wrap ErrRecord.
func DecodeGateRecord(s string) (GateRecord, error) {
	var r GateRecord
	if err := decode(s, &r, func() int { return r.Version }); err != nil {
		return GateRecord{}, fmt.Errorf("annotation %s: %w", AnnotationRestore, err)
	}

	return r, nil
}

func (v Volume) validate() error {
	if v.Job == "" {
		return fmt.Errorf("%w: job is empty", ErrRecord)
	}

	want, err := RepositoryPath(v.Repository.Namespace, v.Repository.ID)
	if err != nil {
		return fmt.Errorf("%w: repository: %w", ErrRecord, err)
	}

	if v.Repository.Path != want {
		return fmt.Errorf("%w: repository.path is %q, expected %q", ErrRecord, v.Repository.Path, want)
	}

	return nil
}

func encode(r any) (string, error) {
	var buf bytes.Buffer

	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)

	if err := enc.Encode(r); err != nil {
		return "", fmt.Errorf("encode record: %w", err)
	}

	return string(bytes.TrimSpace(buf.Bytes())), nil
}

// decode reads a record of this version. Unknown fields are let through: a newer
// release of the same version may add some that an older one can do without.
func decode(s string, into any, version func() int) error {
	if err := decodeVersion(s, into, RecordVersion, version); err != nil {
		return fmt.Errorf("%w: %w", ErrRecord, err)
	}

	return nil
}

// decodeVersion reads a document of one version.
func decodeVersion(s string, into any, known int, version func() int) error {
	if err := json.Unmarshal([]byte(s), into); err != nil {
		return err
	}

	if v := version(); v != known {
		return fmt.Errorf("version %d is not known to this release, which reads version %d; install the release that wrote it, or a newer one",
			v, known)
	}

	return nil
}
