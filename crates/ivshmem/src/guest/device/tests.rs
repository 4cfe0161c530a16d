use super::*;
use crate::error::Error;

const DOORBELL: &str = "\
0x00000000feb54000 0x00000000feb540ff 0x0000000000040200
0x00000000feb55000 0x00000000feb55fff 0x0000000000040200
0x00000000fe000000 0x00000000fe0fffff 0x000000000014220c
0x0000000000000000 0x0000000000000000 0x0000000000000000
";
const PLAIN: &str = "\
0x00000000feb54000 0x00000000feb540ff 0x0000000000040200
0x0000000000000000 0x0000000000000000 0x0000000000000000
0x0000004000000000 0x00000040000fffff 0x000000000014220c
";

/// A bus with a device at each address.
fn bus(devices: &[(&str, &str)]) -> tempfile::TempDir {
    let bus = tempfile::tempdir().unwrap();
    fs::create_dir_all(bus.path().join("devices")).unwrap();
    for (address, resource) in devices {
        let directory = bus.path().join("devices").join(address);
        fs::create_dir(&directory).unwrap();
        for (name, text) in
            [("vendor", "0x1af4\n"), ("device", "0x1110\n"), ("resource", resource), ("enable", "0\n")]
        {
            fs::write(directory.join(name), text).unwrap();
        }
    }
    bus
}

fn device_error(result: Result<impl fmt::Debug>) -> DeviceError {
    match result.unwrap_err() {
        Error::Device(error) => error,
        other => panic!("{other}"),
    }
}

#[test]
fn the_only_device_is_found_among_others() {
    let bus = bus(&[("0000:00:03.0", DOORBELL)]);
    let other = bus.path().join("devices/0000:00:01.0");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("vendor"), "0x1af4\n").unwrap();
    fs::write(other.join("device"), "0x1003\n").unwrap();
    let device = Device::only(Device::all_on(bus.path()).unwrap()).unwrap();
    assert_eq!(device.address(), "0000:00:03.0");
    assert_eq!((device.kind(), device.memory_size()), (Kind::Doorbell, 1 << 20));
    let error = device_error(Device::on(bus.path(), "0000:00:01.0"));
    assert!(matches!(error, DeviceError::NotIvshmem { .. }), "{error}");
}

#[test]
fn none_and_several_are_refused() {
    let none = bus(&[]);
    let error = device_error(Device::only(Device::all_on(none.path()).unwrap()));
    assert!(matches!(error, DeviceError::None), "{error}");
    let two = bus(&[("0000:00:04.0", PLAIN), ("0000:00:03.0", DOORBELL)]);
    let error = device_error(Device::only(Device::all_on(two.path()).unwrap())).to_string();
    assert!(error.contains("0000:00:03.0 and 0000:00:04.0"), "{error}");
    assert_eq!(Device::on(two.path(), "0000:00:04.0").unwrap().kind(), Kind::Plain);
}

#[test]
fn addresses_lead_nowhere_else() {
    let bus = bus(&[("0000:00:03.0", DOORBELL)]);
    for address in ["", "../devices/0000:00:03.0", "0000:00:03.0/", "0000:00:05.0"] {
        let error = device_error(Device::on(bus.path(), address));
        assert!(matches!(error, DeviceError::NotIvshmem { .. }), "{error}");
    }
}

#[test]
fn a_device_without_memory_is_refused() {
    for resource in ["", "0x0 0x0 0x0\n", "nonsense\n1\n2\n", "0x1 0xff 0x0\n0x0 0x0 0x0\n0x0 0x0 0x0\n"] {
        let bus = bus(&[("0000:00:03.0", resource)]);
        let error = device_error(Device::on(bus.path(), "0000:00:03.0"));
        assert!(matches!(error, DeviceError::Unreadable { .. }), "{error}");
    }
}

#[test]
fn what_to_do_for_vfio_is_said() {
    let bus = bus(&[("0000:00:03.0", DOORBELL)]);
    let device = Device::on(bus.path(), "0000:00:03.0").unwrap();
    let error = device_error(device.bind_to_vfio()).to_string();
    assert!(error.contains("intel_iommu=on"), "{error}");
    std::os::unix::fs::symlink("/sys/kernel/iommu_groups/7", device.file("iommu_group")).unwrap();
    assert_eq!(device.iommu_group().unwrap(), 7);
    let error = device_error(device.bind_to_vfio()).to_string();
    assert!(error.contains("modprobe vfio-pci"), "{error}");
    fs::create_dir_all(bus.path().join("drivers/vfio-pci")).unwrap();
    let error = device_error(device.bind_to_vfio()).to_string();
    assert!(error.contains("did not take"), "{error}");
    assert_eq!(fs::read_to_string(device.file("driver_override")).unwrap(), "vfio-pci");
    std::os::unix::fs::symlink("/sys/bus/pci/drivers/uio_pci_generic", device.file("driver")).unwrap();
    let error = device_error(device.bind_to_vfio()).to_string();
    assert!(error.contains("uio_pci_generic/unbind"), "{error}");
}

#[test]
fn memory_is_switched_on_by_the_file_or_the_register() {
    let bus = bus(&[("0000:00:03.0", DOORBELL)]);
    let device = Device::on(bus.path(), "0000:00:03.0").unwrap();
    device.enable().unwrap();
    assert_eq!(device.read("enable").unwrap(), "1");
    // With a driver, that file refuses.
    std::os::unix::fs::symlink("/sys/bus/pci/drivers/vfio-pci", device.file("driver")).unwrap();
    let mut config = [0; 64];
    config[4] = 0x80;
    fs::write(device.file("config"), config).unwrap();
    device.enable().unwrap();
    assert_eq!(fs::read(device.file("config")).unwrap()[4], 0x82);
}

#[test]
fn combined_writes_are_preferred() {
    let bus = bus(&[("0000:00:03.0", DOORBELL)]);
    let device = Device::on(bus.path(), "0000:00:03.0").unwrap();
    assert_eq!(device.memory_path(), device.file("resource2"));
    fs::write(device.file("resource2_wc"), "").unwrap();
    let file = if cfg!(target_arch = "x86_64") { "resource2" } else { "resource2_wc" };
    assert_eq!(device.memory_path(), device.file(file));
}
