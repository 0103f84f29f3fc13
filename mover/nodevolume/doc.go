// Package nodevolume finds a volume of a pod in the kubelet's folders on this
// node, and opens it.
//
// The way from the pods folder to a volume's own folder belongs to the kubelet,
// but tenants choose names on it, and what lies below is theirs. So each name is
// checked, and each folder on the way is opened relative to the one before, never
// through a link. What lies in the volume is none of this package's business.
package nodevolume
